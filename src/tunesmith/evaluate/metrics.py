"""Figures that say how good answers are, each with how far chance alone may have moved it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

RESAMPLES = 1000
OTHER = "other"
"""The column of a confusion matrix for answers that are none of the labels."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class Scores:
    """How good a model is on a set of rows; without right answers, its loss alone."""

    loss: float
    n: int
    accuracy: float | None = None
    interval: Interval | None = None
    """95% bootstrap interval of the accuracy."""
    macro_f1: float | None = None
    """Mean of the labels' F1; a label that is never said counts 0."""
    macro_f1_interval: Interval | None = None
    labels: tuple[str, ...] = ()
    confusion: tuple[tuple[int, ...], ...] = ()
    """Rows are right answers, columns what was said, the last column anything else."""

    @property
    def perplexity(self) -> float:
        return math.exp(min(self.loss, 700.0))

    def as_json(self) -> dict[str, Any]:
        """The figures under their fixed names; intervals are [low, high]."""
        return asdict(self) | {"perplexity": self.perplexity}

    @staticmethod
    def from_json(facts: dict[str, Any] | None) -> Scores | None:
        """What `as_json` wrote."""
        if not facts:
            return None
        kept = {key: tuple(value) if isinstance(value, list) else value for key, value in facts.items()}
        kept.pop("perplexity")
        return Scores(**(kept | {"confusion": tuple(tuple(row) for row in kept["confusion"])}))


def measure(gold: Sequence[str], said: Sequence[str], loss: float, n: int | None = None, seed: int = 0) -> Scores:
    """Hold what was said against what is right. Without right answers only `loss` over `n` rows is known."""
    if not gold:
        return Scores(loss, n or 0)
    labels = tuple(sorted(set(gold)))
    number = {label: at for at, label in enumerate(labels)}
    right = np.array([number[answer] for answer in gold])
    chosen = np.array([number.get(answer, len(labels)) for answer in said])
    drawn = np.random.default_rng(seed).integers(0, len(right), (RESAMPLES, len(right)))
    hits = (right == chosen).astype(float)
    tables = np.stack([table(right[rows], chosen[rows], len(labels)) for rows in drawn])
    whole = table(right, chosen, len(labels))
    # beyond so many labels the answers are free text: a matrix of them tells nobody anything
    few = len(labels) <= 50
    return Scores(
        loss,
        len(right),
        float(hits.mean()),
        interval(hits[drawn].mean(1)),
        float(macro_f1(whole[None])[0]),
        interval(macro_f1(tables)),
        labels if few else (),
        tuple(tuple(int(count) for count in row) for row in whole) if few else (),
    )


def table(right: np.ndarray, chosen: np.ndarray, labels: int) -> np.ndarray:
    """[L, L + 1] how often each answer was given where each was right."""
    return np.bincount(right * (labels + 1) + chosen, minlength=labels * (labels + 1)).reshape(labels, labels + 1)


def macro_f1(tables: np.ndarray) -> np.ndarray:
    """[B, L, L + 1] -> [B] the mean F1 over the labels that occur."""
    hits = np.diagonal(tables, axis1=1, axis2=2)
    there = tables.sum(2)
    said = tables[:, :, :-1].sum(1)
    f1 = 2 * hits / np.maximum(there + said, 1)
    return (f1 * (there > 0)).sum(1) / np.maximum((there > 0).sum(1), 1)


def interval(values: np.ndarray) -> Interval:
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
