"""What built-in data are made of: rows in splits, and pairs of reviews by the scores that readers gave them."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..data.example import Example
from ..data.ratings import agreement, halves, level

log = logging.getLogger("tunesmith")

Row = dict[str, Any]


def write_splits(rows: Iterable[Row], folder: Path) -> None:
    """Write each row into the file of its split."""
    for name, share in shared(rows).items():
        write_rows(share, folder / f"{name}.jsonl")
        log.info("%s: %d rows", name, len(share))


def write_rows(rows: Iterable[Row], file: Path) -> None:
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    file.write_text("".join(lines), encoding="utf-8", newline="\n")


def shared(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """The rows of each split; the order is that of the hashes, so that the first of them are a sample."""
    shares: dict[str, list[Row]] = {"train": [], "validation": [], "test": []}
    for place, row in sorted(unique(rows).items()):
        shares[split(place)].append(row)
    return shares


def unique(rows: Iterable[Row]) -> dict[str, Row]:
    """Each text once, under the hash of its letters; texts that stand under two labels are left out."""
    first: dict[str, Row] = {}
    disputed = set()
    for row in rows:
        place = hashlib.sha256(" ".join(row["text"].casefold().split()).encode()).hexdigest()
        if first.setdefault(place, row)["label"] != row["label"]:
            disputed.add(place)
    return {place: row for place, row in first.items() if place not in disputed}


def split(place: str) -> str:
    """20 in 100 to test, 10 to validation: by a text's own hash, so that it stays there whatever else is added."""
    part = int(place[:8], 16) % 100
    return "test" if part < 20 else "validation" if part < 30 else "train"


# --- pairs ------------------------------------------------------------------------------------------------------------

PROMPT = "Write one sentence of a very positive film review."


def write_pairs(shares: dict[str, list[Row]], folder: Path) -> None:
    """Write the pairs of each split, and in README.md how far raters agree on them."""
    lines = [CARD]
    for name, rows in shares.items():
        pairs = [*paired(rows, apart=name != "train")]
        write_rows(pairs, folder / f"{name}.jsonl")
        if pairs:
            one, half = agreed(pairs)
            lines.append(f"| {name} | {len(pairs):,} | {len(rows):,} | {one:.1%} | {half:.1%} |\n")
            said = f"one rater agrees with all of them in {one:.1%}, one half with the other half in {half:.1%}"
            log.info("%s: %d pairs; %s", name, len(pairs), said)
    (folder / "README.md").write_text("".join(lines), encoding="utf-8", newline="\n")


def paired(rows: Sequence[Row], apart: bool) -> Iterator[Row]:
    """Each row with its neighbour, the better one first; those that raters hold to be level are left out.

    What is held out stands `apart`, each row in one pair, so that no two pairs have anything in common and chance is
    what an interval says it is; what is trained on stands in two.
    """
    for first, second in zip(rows, rows[1:], strict=False) if not apart else zip(rows[::2], rows[1::2], strict=False):
        worse, better = sorted((first, second), key=lambda row: float(np.mean(row["ratings"])))
        if level(np.mean(better["ratings"]) - np.mean(worse["ratings"])) == 1:
            yield {
                "prompt": PROMPT,
                "chosen": better["text"],
                "rejected": worse["text"],
                "chosen_ratings": better["ratings"],
                "rejected_ratings": worse["ratings"],
            }


def agreed(pairs: Iterable[Row]) -> tuple[float, float]:
    """How often a rater holds the chosen sentence to be the better, and half of the raters agree with the others."""
    draw = np.random.default_rng(0)
    examples = [Example(ratings=(tuple(row["chosen_ratings"]), tuple(row["rejected_ratings"]))) for row in pairs]
    one = [agreement(example) or 0.0 for example in examples]
    half = [found for example in examples if (found := halves(example, draw)) is not None]
    return float(np.mean(one)), float(np.mean(half)) if half else float("nan")


CARD = """# Which film review is more positive?

Pairs of sentences from Rotten Tomatoes (Pang & Lee), each scored from -4 to 4 by 15 to 29 readers (Hutto & Gilbert,
ICWSM 2014; MIT). `chosen` is the sentence with the higher mean; `chosen_ratings` and `rejected_ratings` are the
readers' scores. Sentences are split by a hash of their letters, as in demo/movie-reviews, so that none stands in two
splits; here those near neutral are kept. A sentence that is held out stands in one pair.

How far readers agree on these pairs: `one rater` is how often one who scored the first and one who scored the second
put them in the order of all means, where they are level half; `half of them` how often one half of each sentence's
readers puts them in the order that the other half does. The order of all readers is more exact than that of half of
them, so that a good model may agree with it a little more often.

| split | pairs | sentences | one rater | half of them |
|-|-|-|-|-|
"""
