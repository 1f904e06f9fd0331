"""How far a judgement of pairs can be believed: whether it is right as often as it is sure, and how far raters agree.

Letters of shapes: N pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ..data.example import Example
from ..data.ratings import agreement, halves
from .metrics import RESAMPLES, Interval, interval

BINS = 10
"""Bins of like width from a chance of a half to certainty."""

Bin = tuple[float, float, int]
"""How sure the judgement is, how often it is right, and of how many pairs."""


@dataclass(frozen=True)
class Calibration:
    """Whether a judgement of pairs is right as often as it is sure."""

    error: float
    """Expected calibration error: by how much the two differ in a bin, over all pairs (Guo et al. 2017)."""
    error_interval: Interval
    brier: float
    """Mean square of what is missing to certainty of what is right (Brier 1950); 0.25 for one who always says half."""
    brier_interval: Interval
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class Agreement:
    """How far raters agree on pairs: what a judgement that is held against them can come to."""

    one: float
    """How often one of the raters orders a pair as it is given."""
    one_interval: Interval
    halves: float | None = None
    """How often one half of the raters orders a pair as the other half does."""
    halves_interval: Interval | None = None


def calibration(odds: Sequence[float], seed: int = 0) -> Calibration:
    """Of pairs of which the first is the better, given the log-odds that a model sees for that."""
    gap = np.asarray(odds, float)
    right, missing = gap > 0, 1 / (1 + np.exp(np.clip(gap, -700, 700)))
    sure = np.maximum(missing, 1 - missing)
    place = np.minimum((2 * BINS * (sure - 0.5)).astype(int), BINS - 1)

    def error(drawn: np.ndarray) -> float:
        off = np.bincount(place[drawn], sure[drawn] - right[drawn], BINS)
        return float(np.abs(off).sum() / len(drawn))

    whole = np.arange(len(gap))
    draws = redrawn(error, len(gap), seed)  # each has its own noise too, by which it is farther off as a mean
    found = [(sure[place == n], right[place == n]) for n in range(BINS)]
    return Calibration(
        error(whole),
        interval((draws + error(whole) - draws.mean()).clip(0)),
        float(np.mean(missing**2)),
        resampled(partial(mean, missing**2), len(gap), seed),
        tuple((float(one.mean()), float(hit.mean()), len(one)) for one, hit in found if len(one)),
    )


def agreed(examples: Sequence[Example], seed: int = 0) -> Agreement | None:
    """How far the raters of pairs agree; None where it is not known of every pair."""
    one = [agreement(example) for example in examples]
    if not one or any(share is None for share in one):
        return None
    draw = np.random.default_rng(seed)
    half = [halves(example, draw) for example in examples]
    alone = np.array(one, float)
    said = float(alone.mean()), resampled(partial(mean, alone), len(alone), seed)
    if any(share is None for share in half):
        return Agreement(*said)
    divided = np.array(half, float)
    return Agreement(*said, float(divided.mean()), resampled(partial(mean, divided), len(divided), seed))


def mean(values: np.ndarray, drawn: np.ndarray) -> float:
    return float(values[drawn].mean())


def resampled(figure: Callable[[np.ndarray], float], n: int, seed: int) -> Interval:
    """The 95% bootstrap interval of a figure of n things, given the numbers of those drawn."""
    return interval(redrawn(figure, n, seed))


def redrawn(figure: Callable[[np.ndarray], float], n: int, seed: int) -> np.ndarray:
    """[RESAMPLES] the figure of n of the n things, drawn anew each time."""
    draw = np.random.default_rng(seed)
    return np.array([figure(draw.integers(0, n, n)) for _ in range(RESAMPLES)])
