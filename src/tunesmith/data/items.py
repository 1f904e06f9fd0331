"""Every row of a run's data, with what became of it: what the lint and the statistics look at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from .dataset import Pass
from .item import Item
from .reading.places import Place
from .rendering.render import Renderer

if TYPE_CHECKING:
    from ..run import Run

T = TypeVar("T")


def items(run: Run, found: Sequence[Place], renderer: Renderer | None) -> Iterator[Item]:
    """Every row of these sources, drawn or not, in the order of its file; without a renderer none has sequences."""
    for passing in passes(run, found, renderer):
        yield from passing.items()


def folded(run: Run, found: Sequence[Place], renderer: Renderer | None, fold: Callable[[list[Item]], T]) -> Iterator[T]:
    """What `fold` makes of the same rows, some hundred at a time, in other processes; quicker where that is less."""
    for passing in passes(run, found, renderer):
        yield from passing.folded(fold)


def passes(run: Run, found: Sequence[Place], renderer: Renderer | None) -> Iterator[Pass]:
    for place in found:
        everything = replace(place, most=None)
        yield Pass(everything, renderer, run.objective.targets, run.train.seed, measured=1)
