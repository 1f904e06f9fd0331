"""Whether a judge has earned trust: how far it agrees with people, and what sways it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from ..config.load import dump
from ..errors import DataError, RecipeError
from ..evaluate.metrics import RESAMPLES, interval
from ..files import write
from .judge import AtWork, Pair, Verdict
from .judging import THRESHOLD

LEAST = 30
"""Fewer pairs say nothing of a judge, whatever their figures."""
MOST_UNJUDGED = 0.1
"""A judge that leaves more of the pairs unjudged may agree with people only where that is easy."""
BLOCK = 200
TIE = 2

FIGURES = {
    "kappa": "agreement beyond chance (Cohen 1960); a tie agrees with nobody",
    "accuracy": "share of pairs where it prefers what people prefer; a tie counts one half",
    "ties": "share where its preference turns with the order of the answers",
    "shown_first": "how often it prefers the answer shown first; fair is 0.5",
    "position_bias": "the same less 0.5",
    "longer_judge": "how often it prefers the longer answer, ties aside",
    "longer_people": "how often people do, of the same pairs",
    "length_bias": "the difference of the two",
}


@dataclass(frozen=True)
class Figure:
    """A number, and where it lies with 95% probability; both None where nothing could be counted."""

    value: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Calibration:
    """What is known of a judge."""

    fingerprint: str
    """Names the judge with all that decides its verdicts."""
    judge: dict[str, Any]
    """Its settings; the key is none of them."""
    data: str
    pairs: int
    """Pairs that people have judged, and the judge too."""
    unjudged: int
    """Those that the judge has not."""
    figures: dict[str, Figure]
    reasons: dict[str, int] = field(default_factory=dict)
    """Why pairs were left unjudged."""
    account: dict[str, float] = field(default_factory=dict)
    repeats: int = 0
    """Rows of pairs that had been there before; they are left out."""

    def distrust(self, threshold: float = THRESHOLD) -> str | None:
        """Why the judge's labels are not to be learnt from; None if they may be."""
        found = self.figures["kappa"].interval
        total = self.pairs + self.unjudged
        if self.pairs < LEAST:
            again = f" ({self.repeats} rows more are of the same ones)" if self.repeats else ""
            return f"it was held against people on {self.pairs} pairs only{again}, and at least {LEAST} are needed"
        if self.unjudged > MOST_UNJUDGED * total:
            return f"it left {self.unjudged} of {total} pairs unjudged ({next(iter(self.reasons), '')})"
        if found is None or found[0] < max(threshold, THRESHOLD):
            low = "nothing" if found is None else f"{found[0]:.2f}"
            set_lower = found is not None and found[0] >= threshold
            below = f"the usual {THRESHOLD:g}, though not the threshold {threshold:g} that was set" if set_lower else ""
            below = below or f"the threshold {threshold:g}"
            return f"its agreement with people may be as low as a kappa of {low}, below {below}"
        return None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def save(self, file: Path) -> None:
        write(file, json.dumps(self.as_json(), indent=1, ensure_ascii=False))

    def lines(self) -> list[tuple[str, str, str, str]]:
        """Each figure, its interval, and what it is."""
        return [
            (name, shown(figure.value), " to ".join(map(shown, figure.interval or ())), FIGURES[name])
            for name, figure in self.figures.items()
        ]


def shown(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


def read_calibration(file: Path) -> Calibration:
    """What `Calibration.save` wrote."""
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        figures = {
            name: Figure(one["value"], tuple(one["interval"]) if one["interval"] else None)
            for name, one in facts.pop("figures").items()
        }
        known = {name: value for name, value in facts.items() if name in Calibration.__dataclass_fields__}
        return Calibration(**known, figures=figures)
    except OSError as error:
        raise RecipeError(
            f"calibration: {file} cannot be read ({error.strerror}); `tunesmith judge calibrate` writes one"
        ) from None
    except (ValueError, LookupError, TypeError, AttributeError):
        raise RecipeError(f"calibration: {file} is none; `tunesmith judge calibrate` writes one") from None


def calibrate(judge: AtWork, pairs: Sequence[Pair], data: str, seed: int = 0) -> Calibration:
    """Hold a judge against people, who prefer the first answer of each pair.

    The answers are put into an order that has nothing to do with that, and the judge is asked in both. A pair that
    comes again says nothing new, whichever answer stands first in it, and is counted once.
    """
    if not pairs:
        raise DataError(f"{data}: holds no pairs of answers; expected a better and a worse one in each row")
    rows, pairs = len(pairs), different(pairs)
    turned = [apart(pair) for pair in pairs]
    verdicts = judge.compare(
        [Pair(pair.turns, pair.other, pair.one) if t else pair for pair, t in zip(pairs, turned, strict=True)]
    )
    there = [n for n, verdict in enumerate(verdicts) if verdict.there]
    judged = Rows.of([(pairs[n], turned[n], verdicts[n]) for n in there]) if there else None
    return Calibration(
        judge.fingerprint,
        dump(judge.settings) | {"identity": judge.identity},
        data,
        len(there),
        len(pairs) - len(there),
        judged.figures(seed) if judged else {name: Figure(None, None) for name in FIGURES},
        dict(Counter(verdict.why for verdict in verdicts if not verdict.there)),
        judge.account.as_json(),
        rows - len(pairs),
    )


def different(pairs: Sequence[Pair]) -> list[Pair]:
    """Each pair once, as it first came."""
    found = dict[str, Pair]()
    for pair in pairs:
        found.setdefault(repr((pair.turns, sorted((pair.one, pair.other)))), pair)
    return [*found.values()]


def apart(pair: Pair) -> bool:
    """Whether the answers change places, by a hash of what they say: the same each time, and blind to who is better."""
    one, other = (sha256(text.encode("utf-8", "surrogatepass")).digest() for text in (pair.one, pair.other))
    return one > other


@dataclass(frozen=True)
class Rows:
    """What people and the judge said of each pair."""

    people: np.ndarray  # [N] 0 or 1, which answer
    judge: np.ndarray  # [N] 0, 1 or a tie
    first: np.ndarray  # [N] how often of twice the answer shown first was preferred
    longer: np.ndarray  # [N] which answer is the longer, -1 if none

    @staticmethod
    def of(judged: Sequence[tuple[Pair, bool, Verdict]]) -> Rows:
        people, judge, first, longer = [], [], [], []
        for pair, turned, verdict in judged:
            lengths = (len(pair.other), len(pair.one)) if turned else (len(pair.one), len(pair.other))
            people.append(int(turned))
            judge.append(TIE if verdict.better is None else verdict.better)
            first.append(int(bool(verdict.forth)) + int(bool(verdict.back)))
            longer.append(-1 if lengths[0] == lengths[1] else int(lengths[1] > lengths[0]))
        return Rows(*map(np.array, (people, judge, first, longer)))

    def figures(self, seed: int) -> dict[str, Figure]:
        """Every figure with its interval, for which the pairs are drawn anew."""
        size, draw = len(self.people), np.random.default_rng(seed)
        exact = self.over(np.arange(size)[None])
        drawn = [self.over(draw.integers(0, size, (BLOCK, size))) for _ in range(RESAMPLES // BLOCK)]
        return {name: figure(exact[name][0], np.concatenate([one[name] for one in drawn])) for name in FIGURES}

    def over(self, chosen: np.ndarray) -> dict[str, np.ndarray]:
        """[B, N] which pairs -> each figure, [B]."""
        people, judge, longer = self.people[chosen], self.judge[chosen], self.longer[chosen]
        agreed, tied = people == judge, judge == TIE
        chance = sum(((people == k).mean(1) * (judge == k).mean(1) for k in (0, 1)), np.zeros(len(chosen)))
        first = self.first[chosen].mean(1) / 2
        told = (longer >= 0) & ~tied
        with np.errstate(invalid="ignore", divide="ignore"):
            longer_judge = ((judge == longer) & told).sum(1) / told.sum(1)
            longer_people = ((people == longer) & told).sum(1) / told.sum(1)
            kappa = np.where(chance < 1, (agreed.mean(1) - chance) / (1 - chance), np.nan)
        return {
            "kappa": kappa,
            "accuracy": agreed.mean(1) + tied.mean(1) / 2,
            "ties": tied.mean(1),
            "shown_first": first,
            "position_bias": first - 0.5,
            "longer_judge": longer_judge,
            "longer_people": longer_people,
            "length_bias": longer_judge - longer_people,
        }


def figure(value: float, drawn: np.ndarray) -> Figure:
    there = drawn[~np.isnan(drawn)]
    return Figure(None if np.isnan(value) else float(value), interval(there) if len(there) else None)
