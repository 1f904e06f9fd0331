"""How long sequences are, and what a limit to their length would cost."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from .item import Item
from .reading.row import place_of

ENDLESS = 1 << 30
"""Longer than any sequence: what is to be measured must not be cut."""
SHARES = (50, 75, 90, 95, 99)
STEP = 64
"""A suggested limit is a multiple of this."""
BARS = 16


class Lengths:
    """Adds up what it sees of each row that is trained on; of a sequence it keeps the length alone."""

    def __init__(self) -> None:
        self.lengths = array("q")
        self.targets = np.zeros(1024, dtype=np.int64)
        """How many sequences learn the token at each place."""
        self.sources: dict[tuple[str, str], Counter[str]] = {}
        self.rows = self.unusable = 0

    def add(self, item: Item) -> None:
        self.rows += 1
        self.unusable += item.fault is not None
        source = self.sources.setdefault((place_of(item.row.origin)[0], item.split), Counter())
        source["rows"] += 1
        for tokens in item.tokens:
            learn = np.flatnonzero(tokens.learn)
            if len(tokens.ids) > len(self.targets):
                self.targets = np.pad(self.targets, (0, max(len(tokens.ids), len(self.targets))))
            self.targets[learn] += 1
            self.lengths.append(len(tokens.ids))
            source.update(sequences=1, tokens=len(tokens.ids), target_tokens=len(learn))

    def take(self, other: Lengths) -> None:
        """Add what was seen of the rows that come next."""
        self.rows += other.rows
        self.unusable += other.unusable
        self.lengths += other.lengths
        short, long = sorted((self.targets, other.targets), key=len)
        long[: len(short)] += short
        self.targets = long
        for source, counts in other.sources.items():
            self.sources.setdefault(source, Counter()).update(counts)

    def summary(self, chosen: int) -> dict[str, Any]:
        """All of it as plain values; `chosen` is the limit that the recipe has."""
        lengths = np.array(self.lengths)
        found: dict[str, Any] = {
            "rows": self.rows,
            "unusable": self.unusable,
            "sequences": len(lengths),
            "tokens": int(lengths.sum()),
            "target_tokens": int(self.targets.sum()),
            "sources": [
                {"source": file, "split": split}
                | {key: counts[key] for key in ("rows", "sequences", "tokens", "target_tokens")}
                for (file, split), counts in self.sources.items()
            ],
        }
        if not len(lengths):
            return found | {"percentiles": {}, "histogram": [], "cutoffs": []}
        ranks = {f"{share}%": int(np.percentile(lengths, share, method="higher")) for share in SHARES}
        return found | {
            "percentiles": {"shortest": int(lengths.min()), **ranks, "longest": int(lengths.max())},
            "histogram": histogram(lengths),
            "cutoffs": [self.cost(lengths, limit, limit == chosen) for limit in limits(lengths, chosen)],
        }

    def cost(self, lengths: np.ndarray, limit: int, chosen: bool) -> dict[str, Any]:
        """What is lost with a limit, and what is saved: time goes with the tokens, memory with the longest sequence."""
        cut, lost = int((lengths > limit).sum()), int(self.targets[limit:].sum())
        return {
            "max_length": limit,
            "chosen": chosen,
            "cut": cut,
            "cut_share": cut / len(lengths),
            "lost": lost,
            "lost_share": lost / max(1, int(self.targets.sum())),
            "time": float(np.minimum(lengths, limit).sum() / lengths.sum()),
            "memory": min(1.0, limit / int(lengths.max())),
        }


def measured(items: Sequence[Item]) -> Lengths:
    """What is seen of some rows, which may be in another process."""
    found = Lengths()
    for item in items:
        found.add(item)
    return found


def limits(lengths: np.ndarray, chosen: int) -> list[int]:
    """Limits worth a thought: those that let nine tenths of the sequences through whole, and more; and the recipe's."""
    shares = (90, 95, 99, 100)
    whole = {-(-int(np.percentile(lengths, share, method="higher")) // STEP) * STEP for share in shares}
    return sorted(whole | {chosen})


def histogram(lengths: np.ndarray) -> list[dict[str, int]]:
    """Bars of equal width up to the longest but one in a hundred, and one for the rest."""
    most = int(np.percentile(lengths, 99, method="higher"))
    width = max(1, -(-most // BARS))
    ends = [width * (bar + 1) for bar in range(-(-most // width))]
    bars = [(end - width + 1, end) for end in ends]
    if lengths.max() > ends[-1]:
        bars.append((ends[-1] + 1, int(lengths.max())))
    return [{"from": low, "to": high, "count": int(((lengths >= low) & (lengths <= high)).sum())} for low, high in bars]
