"""Every row of a run's data, with what became of it: what the lint and the statistics look at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from .dataset import Pass, origin_of
from .item import Item
from .places import Place
from .render import Renderer
from .source import Row

if TYPE_CHECKING:
    from ..run import Run


def items(run: Run, found: Sequence[Place], renderer: Renderer | None) -> Iterator[Item]:
    """Every row of these sources, drawn or not, in the order of its file; without a renderer none has sequences."""
    for place in found:
        passing = Pass(replace(place, most=None), renderer, run.objective.targets, run.train.seed, measured=1)  # pyright: ignore[reportArgumentType] - rows need none
        yield from passing.items() if renderer else unrendered(passing)


def unrendered(passing: Pass) -> Iterator[Item]:
    for split, row in passing.rows():
        found = passing.meant(row)
        if isinstance(found, str):
            yield Item(row, split, fault=found)
        else:
            yield from (Item(row, split, example) for example in found)
    yield from (Item(Row(origin_of(sentence), {}), "train", fault=sentence) for sentence in passing.broken)
