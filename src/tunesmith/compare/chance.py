"""How far chance may have moved what a method came to, or what lies between two of them: chance of the rows that were
held out, and of the seeds.

Rows are many, and drawn anew (bootstrap) or exchanged between the two; of seeds there are two or three, whose spread is
itself hardly known, as Student's t says. The ends of both intervals are put together by the squares of their distances
(Zou and Donner 2008), the variances with their degrees of freedom (Satterthwaite 1946).
"""

# N rows

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean, variance

import numpy as np

from ..evaluate.metrics import Interval, gain, wilson
from ..evaluate.surety import resampled

LEVEL = 0.05
"""How often what is chance may be called a difference."""
FLIPS = 10_000
"""Random ways to exchange two runs' results, where there are too many to go through all."""
STEPS = 20_001
"""Points by which an area is measured."""

Part = tuple[float, float]
"""The variance of a mean by one kind of chance, and its degrees of freedom."""


@dataclass(frozen=True)
class Found:
    """What the runs of one method came to, as a mean over held-out rows."""

    figures: tuple[float, ...] = ()
    """Of each run: of each seed."""
    rows: int = 0
    share: bool = False
    """Whether it is the share of rows that are right."""
    each: tuple[float, ...] = ()
    """[N] of each row the mean over the runs, not a number where nobody could say; empty where rows are not known."""
    weight: tuple[float, ...] = ()
    """[N] what a row counts for, where they do not count alike: in a loss, its tokens."""

    @property
    def figure(self) -> float:
        return fmean(self.figures)


def interval(found: Found) -> Interval | None:
    """The 95% interval of what a method came to; None where nothing is known of what chance does to it."""
    ends = [drawn(found)] if sum(map(math.isfinite, found.each)) > 1 else []
    ends += [wilson(found.figure, found.rows)] if found.share else []  # the bootstrap thinks twelve of twelve certain
    parts = of_mean(found.figures)
    if not ends and not parts:
        return None
    low, high = (
        min((low for low, _ in ends), default=found.figure),
        max((high for _, high in ends), default=found.figure),
    )
    low, high = put_together(found.figure, (low, high), parts)
    return (max(low, 0.0), min(high, 1.0)) if found.share else (low, high)


def drawn(found: Found) -> Interval:
    """Between what ends the mean stays where rows are drawn anew."""
    each, weight = np.array(found.each), np.array(found.weight or np.ones(len(found.each)))
    each, weight = each[np.isfinite(each)], weight[np.isfinite(each)]
    weight = weight / weight.mean()
    return resampled(lambda rows: float(each[rows].sum() / max(weight[rows].sum(), 1e-9)), len(each), 0)


def between(one: Found, other: Found) -> Interval | None:
    """The 95% interval of how much more the one came to than the other; of the same rows, with both results of each."""
    more, parts = one.figure - other.figure, of_seeds(one, other)
    first, second = together(one, other)
    if len(first) > 1:
        risen = gain(second, first)
        ends = risen["gain_low"], risen["gain_high"]
    elif one.share and other.share:
        half = within([of_share(one), of_share(other)])
        ends = more - half, more + half
    elif parts:
        ends = more, more
    else:
        return None
    low, high = put_together(more, ends, parts)
    return (max(low, -1.0), min(high, 1.0)) if one.share else (low, high)


def chance(one: Found, other: Found) -> float | None:
    """How often chance alone makes such a difference; None where that cannot be said."""
    parts = of_seeds(one, other)
    first, second = together(one, other)
    moved = np.array(first) - np.array(second)
    if len(moved):
        parts += of_mean(moved.tolist())
    elif one.share and other.share:
        parts += [of_share(one), of_share(other)]
    parts = [part for part in parts if part[0] > 0]
    by_rows = [by_chance(moved)] if len(moved) else []
    by_all = [beyond(abs(one.figure - other.figure) / math.sqrt(pooled(parts)[0]), pooled(parts)[1])] if parts else []
    return max(by_rows + by_all, default=None)


def together(one: Found, other: Found) -> tuple[list[float], list[float]]:
    """The rows that both have a result of; none where these are not known, or are others."""
    if len(one.each) != len(other.each):
        return [], []
    both = [(a, b) for a, b in zip(one.each, other.each, strict=True) if math.isfinite(a) and math.isfinite(b)]
    return [a for a, _ in both], [b for _, b in both]


# kinds of chance


def of_mean(values: Sequence[float]) -> list[Part]:
    """Of a mean of so many; of one alone nothing is known."""
    return [(variance(values) / len(values), len(values) - 1)] if len(values) > 1 else []


def of_seeds(one: Found, other: Found) -> list[Part]:
    """Of the difference of two means over seeds; one that has a single run is taken to vary as the other does."""
    several = [found.figures for found in (one, other) if len(found.figures) > 1]
    if len(several) == 1:
        [runs] = several
        return [(variance(runs) * (1 / len(one.figures) + 1 / len(other.figures)), len(runs) - 1)]
    return [*of_mean(one.figures), *of_mean(other.figures)]


def of_share(found: Found) -> Part:
    """Of a share whose rows are not known."""
    share = min(max(found.figure, 0.5 / found.rows), 1 - 0.5 / found.rows)
    return share * (1 - share) / found.rows, max(found.rows - 1, 1)


def pooled(parts: Sequence[Part]) -> Part:
    """All kinds together."""
    total, squares = sum(part for part, _ in parts), sum(part**2 / free for part, free in parts)
    return total, total**2 / squares if squares else 1.0


def within(parts: Sequence[Part]) -> float:
    """How far a mean lies from the truth 19 times of 20."""
    total, free = pooled(parts)
    return student(free) * math.sqrt(total) if total else 0.0


def put_together(figure: float, ends: Interval, parts: Sequence[Part]) -> Interval:
    """The ends of an interval, widened by further kinds of chance."""
    more = within(parts)
    return figure - math.hypot(figure - ends[0], more), figure + math.hypot(ends[1] - figure, more)


# Student's t


def beyond(t: float, free: float) -> float:
    """How often Student's t lies as far from nothing as this, to either side. Over the angle whose tangent is t / √free
    its density is a power of the cosine."""
    free = min(free, 1e4)

    def area(begin: float) -> float:
        angle = np.linspace(begin, math.pi / 2, STEPS)
        return float(np.trapezoid(np.cos(angle) ** (free - 1), angle))

    return area(math.atan(t / math.sqrt(free))) / area(0.0)


@lru_cache
def student(free: float) -> float:
    """Beyond what it lies once in 20 times."""
    low, high = 0.0, 13.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if beyond(middle, free) > LEVEL else (low, middle)
    return high


# tests


def by_chance(apart: np.ndarray) -> float:
    """How often a mean as far from nothing comes of exchanging each row's two results at random.

    Where rows differ by the same amount or not at all, such as right and wrong, this is McNemar's test, and exact; else
    10,000 random ways are tried (Fisher's randomization test).
    """
    moved = apart[apart != 0]
    if not len(moved):
        return 1.0
    if len(set(np.abs(moved).tolist())) == 1:
        n, k = len(moved), int(min((moved > 0).sum(), (moved < 0).sum()))
        return min(1.0, 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n)
    draw = np.random.default_rng(0)
    far, least, done = 0, abs(moved.sum()) * (1 - 1e-12), 0
    while done < FLIPS:  # in blocks, to bound the memory
        signs = draw.integers(0, 2, (min(500, FLIPS - done), len(moved)), dtype=np.int8) * 2 - 1
        far += int((np.abs(signs @ moved) >= least).sum())
        done += len(signs)
    return (far + 1) / (FLIPS + 1)


def holm(ps: Sequence[float]) -> list[float]:
    """p-values of several tests, such that all of them together are wrong no more often than one (Holm 1979)."""
    found, least = [0.0] * len(ps), 0.0
    for rank, at in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        least = max(least, min(1.0, ps[at] * (len(ps) - rank)))
        found[at] = least
    return found


def corrected(ps: Sequence[float | None]) -> list[float | None]:
    """The same of those that are known."""
    adjusted = iter(holm([p for p in ps if p is not None]))
    return [None if p is None else next(adjusted) for p in ps]
