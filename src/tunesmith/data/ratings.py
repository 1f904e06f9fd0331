"""What raters said of two answers: by how much the first is the better, and how far they agree.

Letters of shapes: B ways of dividing raters in halves, N raters.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .example import Example

Ratings = Sequence[float]
DRAWS = 64
"""Ways of dividing the raters of a pair in halves."""


def rated(example: Example) -> dict[str, float]:
    """What raters said of an example's two answers, as far as they said it: margin and agreement."""
    said = {"margin": margin(example), "agreement": agreement(example)}
    return {name: value for name, value in said.items() if value is not None}


def margin(example: Example) -> float | None:
    """By how much the first of two answers is better than the second: as it is given, or as raters scored them."""
    if example.margin is not None or not example.ratings:
        return example.margin
    better, worse = example.ratings
    return float(np.mean(better) - np.mean(worse))


def agreement(example: Example) -> float | None:
    """The share of raters who hold the first of two answers to be the better: as it is given, or the chance that one
    who scored the first scored higher than one who scored the second; where they are level, half."""
    if example.agreement is not None or not example.ratings:
        return example.agreement
    better, worse = map(np.array, example.ratings)
    return float(np.mean(level(better[:, None] - worse)))


def halves(example: Example, draw: np.random.Generator) -> float | None:
    """How often one half of each answer's raters orders a pair as the other half does, half a time where one of them is
    undecided; None where an answer has a single rater."""
    if not example.ratings or min(map(len, example.ratings)) < 2:
        return None
    sides = [split(np.array(ratings, float), draw) for ratings in example.ratings]
    first, second = (level(better - worse) for better, worse in zip(*sides, strict=True))
    return float(np.mean(first * second + (1 - first) * (1 - second)))


def split(ratings: np.ndarray, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """[N] -> [B] the mean of one half of the raters, and [B] that of the others, drawn anew each time."""
    mixed = draw.permuted(np.broadcast_to(ratings, (DRAWS, len(ratings))), axis=1)
    half = len(ratings) // 2
    return mixed[:, :half].mean(1), mixed[:, half:].mean(1)


def level(difference: np.ndarray) -> np.ndarray:
    """1 where it is above nothing, 0 where below, one half between; means of equal scores differ by rounding alone."""
    return np.where(np.abs(difference) < 1e-9, 0.5, difference > 0)
