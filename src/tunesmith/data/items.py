"""Every row of a run's data, with what became of it: what the lint and the statistics look at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from .dataset import Pass
from .item import Item
from .reading.places import Place
from .rendering.render import Renderer

if TYPE_CHECKING:
    from ..run import Run


def items(run: Run, found: Sequence[Place], renderer: Renderer | None) -> Iterator[Item]:
    """Every row of these sources, drawn or not, in the order of its file; without a renderer none has sequences."""
    for place in found:
        everything = replace(place, most=None)
        yield from Pass(everything, renderer, run.objective.targets, run.train.seed, measured=1).items()
