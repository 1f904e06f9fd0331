"""Figures of what is told of texts, a task at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..data.example import Example
from ..data.rendering.tokens import Tokens
from ..data.task import Task
from .metrics import RESAMPLES, Scores, interval, measure


def figures(task: Task, sequences: Sequence[Tokens], heads: np.ndarray, loss: float) -> Scores:
    """How good what is said of some texts of a task is, given the outputs for each, [N, C]."""
    if task.kind == "answers":
        return Scores(loss, len(sequences))
    return FIGURES[task.kind](task, sequences, heads[:, task.outputs], loss)


def of_class(task: Task, sequences: Sequence[Tokens], own: np.ndarray, loss: float) -> Scores:
    """One class among others."""
    gold = [task.labels[one.label or 0] for one in sequences]
    return measure(gold, [task.labels[at] for at in own.argmax(-1).tolist()], loss)


def of_several(task: Task, sequences: Sequence[Tokens], own: np.ndarray, loss: float) -> Scores:
    """Several classes: right is who has all of a text's right; the F1 is the mean of the classes' own."""
    gold, said = np.array([one.marks for one in sequences]) > 0.5, own > 0
    n = len(gold)
    drawn = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), RESAMPLES)
    right = (gold == said).all(-1)

    def f1(times: np.ndarray) -> np.ndarray:
        """[B, N] how often each text counts -> [B] the mean F1 of the classes that occur."""
        there, hits = times @ gold, times @ (gold & said)
        each = 2 * hits / np.maximum(there + times @ said, 1)
        return each.sum(1, where=there > 0) / np.maximum((there > 0).sum(1), 1)

    return Scores(
        loss,
        n,
        float(right.mean()),
        interval(drawn @ right / n),
        float(f1(np.ones((1, n), int))[0]),
        interval(f1(drawn)),
    )


def of_score(task: Task, sequences: Sequence[Tokens], own: np.ndarray, loss: float) -> Scores:
    """A score: how far off it is, and how far it goes with what is right."""
    gold, said = np.array([one.grade for one in sequences]), own[:, 0]
    n = len(gold)
    drawn = np.random.default_rng(0).integers(0, n, (RESAMPLES, n))
    off = np.abs(gold - said)
    found = correlation(gold[None], said[None])[0]
    resampled = correlation(gold[drawn], said[drawn])
    sure = resampled[~np.isnan(resampled)]
    return Scores(
        loss,
        n,
        error=float(off.mean()),
        error_interval=interval(off[drawn].mean(1)),
        correlation=None if np.isnan(found) else float(found),
        correlation_interval=interval(sure) if len(sure) and not np.isnan(found) else None,
    )


def rights(task: Task, sequences: Sequence[Tokens], heads: np.ndarray) -> list[bool]:
    """Of each text, whether all that is said of it is right, given the outputs, [N, C]; of scores nothing."""
    own = heads[:, task.outputs] if task.kind in FIGURES else heads
    if task.kind == "class":
        return [one.label == at for one, at in zip(sequences, own.argmax(-1).tolist(), strict=True)]
    if task.kind == "several":
        return ((np.array([one.marks for one in sequences]) > 0.5) == (own > 0)).all(-1).tolist()
    return []


FIGURES: dict[str, Callable[[Task, Sequence[Tokens], np.ndarray, float], Scores]] = {
    "class": of_class,
    "several": of_several,
    "score": of_score,
}


def correlation(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """[B, N] twice -> [B] Pearson's correlation; not a number where either is the same throughout."""
    one, other = (values - values.mean(1, keepdims=True) for values in (one, other))
    length = np.sqrt((one**2).sum(1) * (other**2).sum(1))
    return np.where(length > 0, (one * other).sum(1) / np.where(length > 0, length, 1), np.nan)


def said(task: Task, head: np.ndarray) -> str:
    """What a head's outputs, [C], say of a text, in words."""
    own = head[task.outputs]
    if task.kind == "score":
        return f"{own[0]:.3g}"
    if task.kind == "several":
        return ", ".join(label for label, value in zip(task.labels, own, strict=True) if value > 0) or "none"
    return task.labels[int(own.argmax())]


def right(example: Example) -> str:
    """What should be said, in words."""
    if example.labels is not None:
        return ", ".join(example.labels) or "none"
    return f"{example.score:.3g}" if example.score is not None else str(example.gold or "")
