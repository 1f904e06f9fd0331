"""Figures that say how good answers are, each with how far chance alone may have moved it."""

# L labels, K different pairs of a right answer and what was said, B resamples

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

RESAMPLES = 1000
ROOM = 2**20
"""Counts held at once while resampling, to bound the memory."""
NORMAL = 1.96
"""Standard errors within which a mean of many stays 19 times of 20."""
FEW = 50
"""With more labels than this the answers are free text, and a matrix of them tells nobody anything."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class Scores:
    """How good a model is on a set of rows; without right answers, its loss alone."""

    loss: float
    n: int
    accuracy: float | None = None
    interval: Interval | None = None
    """95% interval of the accuracy: by bootstrap, of pairs and likes Wilson's."""
    macro_f1: float | None = None
    """Mean of the labels' F1; a label that is never said counts 0."""
    macro_f1_interval: Interval | None = None
    """95% bootstrap interval of the macro-F1."""
    labels: tuple[str, ...] = ()
    """The right answers that occur, sorted; none where they are free text."""
    confusion: tuple[tuple[int, ...], ...] = ()
    """Rows are right answers, columns what was said, the last column anything else."""
    watched: dict[str, float] = field(default_factory=dict)
    """What else the objective looks at, such as rewards and margins of pairs."""
    brier: float | None = None
    """Of pairs, the mean square of what is missing to certainty of the better answer."""
    brier_interval: Interval | None = None
    calibration_error: float | None = None
    """By how much a judgement of pairs is surer, or less sure, than it is right."""
    calibration_error_interval: Interval | None = None
    reliability: tuple[tuple[float, float, int], ...] = ()
    """How sure it is, how often it is right, and of how many pairs."""
    one_rater: float | None = None
    """How often one of the raters orders these pairs as they are given."""
    one_rater_interval: Interval | None = None
    half_of_raters: float | None = None
    """How often one half of the raters orders these pairs as the other half does."""
    half_of_raters_interval: Interval | None = None

    error: float | None = None
    """Of scores, by how much they are off, as a mean."""
    error_interval: Interval | None = None
    correlation: float | None = None
    """Of scores, Pearson's correlation with what is right."""
    correlation_interval: Interval | None = None
    tasks: dict[str, Scores] = field(default_factory=dict)
    """The same of each of several tasks by itself."""

    @property
    def perplexity(self) -> float:
        return math.exp(min(self.loss, 700.0))  # e^710 is no longer a float

    def as_json(self) -> dict[str, Any]:
        """The figures under their fixed names, in the types of JSON; intervals are [low, high]."""
        found = as_lists(asdict(self)) | {"perplexity": self.perplexity}
        return found | {"tasks": {name: one.as_json() for name, one in self.tasks.items()}}

    @staticmethod
    def from_json(facts: dict[str, Any] | None) -> Scores | None:
        """What `as_json` wrote."""
        if not facts:
            return None
        found = {key: as_tuples(value) for key, value in facts.items() if key != "perplexity"}
        tasks = {name: Scores.from_json(one) for name, one in found.get("tasks", {}).items()}
        return Scores(**{**found, "tasks": tasks})


def as_lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: as_lists(item) for key, item in value.items()}
    return [as_lists(item) for item in value] if isinstance(value, tuple) else value


def as_tuples(value: Any) -> Any:
    return tuple(as_tuples(item) for item in value) if isinstance(value, list) else value


def measure(gold: Sequence[str], predicted: Sequence[str], loss: float, n: int | None = None, seed: int = 0) -> Scores:
    """Hold what was said against what is right. Without right answers only `loss` over `n` rows is known."""
    if len(gold) != len(predicted):
        raise ValueError(f"{len(gold)} right answers and {len(predicted)} predictions; there must be one for each")
    if not gold:
        return Scores(loss, n or 0)
    labels = tuple(sorted(set(gold)))
    table = Table.of(gold, predicted, labels)
    accuracy, f1 = table.figures(table.counts[None])
    drawn = [table.figures(counts) for counts in table.resamples(seed)]
    few = len(labels) <= FEW
    return Scores(
        loss,
        len(gold),
        float(accuracy[0]),
        interval(np.concatenate([accuracies for accuracies, _ in drawn])),
        float(f1[0]),
        interval(np.concatenate([f1s for _, f1s in drawn])),
        labels if few else (),
        table.confusion() if few else (),
    )


def proportion(right: float, n: float, loss: float) -> Scores:
    """So many right of n."""
    return Scores(loss, round(n), right / n, wilson(right / n, n))


def wilson(share: float, n: float) -> Interval:
    """The 95% interval of a share of n (Wilson 1927), which knows that of none, or of all, something may still be
    chance; to draw anew from them would always give the same."""
    square = NORMAL**2
    middle = (share + square / (2 * n)) / (1 + square / n)
    half = NORMAL * math.sqrt(share * (1 - share) / n + square / (4 * n * n)) / (1 + square / n)
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))  # of none exactly 0


def worth(reward: np.ndarray, watched: dict[str, float], seed: int = 0) -> Scores:
    """[N] what answers are worth, not a number where nobody could say: their mean, and its 95% bootstrap interval."""
    there = reward[~np.isnan(reward)]
    if not len(there):
        return Scores(math.nan, 0, watched=watched | dict.fromkeys(("reward", "reward_low", "reward_high"), math.nan))
    drawn = np.random.default_rng(seed).choice(there, (RESAMPLES, len(there))).mean(1)
    low, high = interval(drawn)
    mean = float(there.mean())
    return Scores(-mean, len(there), watched=watched | {"reward": mean, "reward_low": low, "reward_high": high})


def gain(before: Sequence[float | None], after: Sequence[float | None], seed: int = 0) -> dict[str, float]:
    """By how much what answers are worth rose, prompt by prompt: the mean, and its 95% bootstrap interval, for which
    prompts are drawn anew. Chance that is a prompt's own, and the same before and after, takes no part."""
    both = zip(before, after, strict=True)
    rose = np.array([now - then for then, now in both if then is not None and now is not None])
    if not len(rose):
        return {}
    low, high = interval(np.random.default_rng(seed).choice(rose, (RESAMPLES, len(rose))).mean(1))
    return {"gain": float(rose.mean()), "gain_low": low, "gain_high": high}


@dataclass(frozen=True)
class Table:
    """How often each pair of a right answer and what was said occurs; the number L stands for any other answer."""

    right: np.ndarray  # [K]
    said: np.ndarray  # [K]
    counts: np.ndarray  # [K]
    labels: int

    @staticmethod
    def of(gold: Sequence[str], predicted: Sequence[str], labels: Sequence[str]) -> Table:
        number, size = {label: at for at, label in enumerate(labels)}, len(labels)
        pairs = [
            number[right] * (size + 1) + number.get(said, size) for right, said in zip(gold, predicted, strict=True)
        ]
        codes, counts = np.unique(np.array(pairs), return_counts=True)
        return Table(*np.divmod(codes, size + 1), counts, size)

    def resamples(self, seed: int) -> Iterator[np.ndarray]:
        """[B, K] in blocks. To draw rows with replacement is to draw the pairs by how often each occurs."""
        generator, total, left = np.random.default_rng(seed), int(self.counts.sum()), RESAMPLES
        while left > 0:
            size = min(left, max(1, ROOM // len(self.counts)))
            yield generator.multinomial(total, self.counts / total, size)
            left -= size

    def figures(self, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """[B, K] -> [B] accuracy, and [B] the mean F1 of the labels that occur."""
        hits = counts * (self.right == self.said)
        there = by_label(counts, self.right, self.labels)
        said = by_label(counts, self.said, self.labels + 1)[:, :-1]
        f1 = 2 * by_label(hits, self.right, self.labels) / np.maximum(there + said, 1)
        return hits.sum(1) / counts.sum(1), f1.sum(1, where=there > 0) / (there > 0).sum(1)

    def confusion(self) -> tuple[tuple[int, ...], ...]:
        """[L, L + 1] rows are right answers, columns what was said."""
        whole = np.zeros((self.labels, self.labels + 1), int)
        whole[self.right, self.said] = self.counts
        return tuple(map(tuple, whole.tolist()))


def by_label(counts: np.ndarray, label: np.ndarray, labels: int) -> np.ndarray:
    """[B, K] -> [B, L] the sum of the counts that belong to each label."""
    place = np.arange(len(counts))[:, None] * labels + label
    return np.bincount(place.ravel(), counts.ravel(), len(counts) * labels).reshape(len(counts), labels)


def interval(values: np.ndarray) -> Interval:
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def plain(text: str) -> str:
    """An answer without what does not matter: thoughts before it, case, space around it, a full stop at its end."""
    return text.rpartition("</think>")[2].strip().rstrip(".。").casefold()
