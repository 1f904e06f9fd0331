"""How much of each source is trained on, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ...run import Data


def mix(data: Data, sizes: Sequence[int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Of every sequence that an epoch has, the number of its source and its number there: two [N] int64.

    `sizes` are the sequences of each source, none of them 0 where sources are interleaved.
    """
    if data.mixing == "concatenate" or len(sizes) == 1:
        rows = [np.arange(size) for size in sizes]
        return np.repeat(np.arange(len(sizes)), sizes), np.concatenate(rows)
    wanted = counts(sizes, shares(data, sizes), over=data.mixing == "interleave_over")
    rows = [drawn(size, count, seed + number) for number, (size, count) in enumerate(zip(sizes, wanted, strict=True))]
    places = np.concatenate([(np.arange(count) + 0.5) / count for count in wanted])  # each spread over the whole
    order = np.argsort(places, kind="stable")
    return np.repeat(np.arange(len(sizes)), wanted)[order], np.concatenate(rows)[order]


def shares(data: Data, sizes: Sequence[int]) -> np.ndarray:
    """[S] what each source gives of the whole; they add up to 1."""
    weights = np.array([source.weight for source in (data, *data.also)])
    if data.temperature is not None:
        weights = weights * np.array(sizes, float) ** (1 / data.temperature)
    return weights / weights.sum()


def counts(sizes: Sequence[int], parts: np.ndarray, over: bool) -> list[int]:
    """How many sequences of each source make an epoch that uses up the first of them, or every one (over)."""
    passes = np.array(sizes) / parts  # how long the whole would be if a source were used up exactly
    last = int(passes.argmax() if over else passes.argmin())
    made = [max(1, round(float(passes[last] * part))) for part in parts]
    made[last] = sizes[last]
    return made if over else [min(one, size) for one, size in zip(made, sizes, strict=True)]


def drawn(size: int, count: int, seed: int) -> np.ndarray:
    """So many numbers below `size`, each as often as any other or once more."""
    draw = np.random.default_rng(seed)
    return np.concatenate([draw.permutation(size) for _ in range(-(-count // size))])[:count]
