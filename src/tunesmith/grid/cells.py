"""The cells of the grid: which there are, and a choice of them in which every pair occurs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import combinations, product
from typing import NamedTuple

from ..config.registry import did_you_mean
from ..errors import RecipeError
from ..methods.base import method
from ..objectives.base import objective
from ..precision.base import precision

BATCHES = ("packed", "padded")
Part = tuple[tuple[str, str], ...]
"""Names that occur together, each with its kind."""


class Cell(NamedTuple):
    """One way to train."""

    method: str
    objective: str
    precision: str
    batch: str

    @property
    def name(self) -> str:
        return " ".join(self)

    def parts(self, size: int) -> list[Part]:
        """What occurs together in it, so many at a time."""
        return list(combinations(zip(Cell._fields, self, strict=True), size))


def known() -> dict[str, tuple[str, ...]]:
    """Every name of every kind."""
    kinds = {"method": method.all(), "objective": objective.all(), "precision": precision.all(), "batch": BATCHES}
    return {kind: tuple(names) for kind, names in kinds.items()}


def cells(chosen: Mapping[str, Sequence[str]]) -> list[Cell]:
    """All cells of the names that are chosen; of a kind of which none is, all names count."""
    everything = known()
    for kind, names in chosen.items():
        for name in names:
            if name not in everything[kind]:
                raise RecipeError(f"--{kind}: no {kind} '{name}'; {did_you_mean(name, everything[kind])}")
    return [Cell(*one) for one in product(*(chosen.get(kind) or names for kind, names in everything.items()))]


class Cover:
    """Cells, chosen one by one, until all that occurs together in any, so many at a time, has been tried together.

    What is refused has not been tried: its parts are looked for in other cells, until none is left or it is plain which
    part is to blame.
    """

    def __init__(self, cells: Iterable[Cell], size: int) -> None:
        self.size = size
        self.having: dict[Part, list[Cell]] = {}
        for cell in cells:
            for part in cell.parts(size):
                self.having.setdefault(part, []).append(cell)
        self.left = dict.fromkeys(self.having)
        self.tried: set[Part] = set()

    def __iter__(self) -> Iterator[Cell]:
        """Whoever takes a cell says by `settle` what came of it, before taking the next."""
        while self.left:
            part = next(iter(self.left))
            if self.having[part]:
                yield max(self.having[part], key=lambda cell: sum(one in self.left for one in cell.parts(self.size)))
            else:
                del self.left[part]

    def settle(self, cell: Cell, refused: bool) -> None:
        """Note that a cell was tried, or refused."""
        parts = cell.parts(self.size)
        for part in parts:
            self.having[part].remove(cell)
        if not refused:
            self.tried |= set(parts)
        doubtful = [part for part in parts if part in self.left and part not in self.tried]
        for part in parts:
            self.left.pop(part, None)
        if len(doubtful) > 1:  # once the others are tried, one is left that is to blame
            self.left |= dict.fromkeys(doubtful)


def refused_ones(cells: Iterable[Cell], size: int, tried: Collection[Part]) -> Iterator[Cell]:
    """Of cells that are refused beforehand, a few in which every part occurs that is tried nowhere."""
    cover = Cover(cells, size)
    for part in cover.left.keys() & tried:
        del cover.left[part]
    for cell in cover:
        yield cell
        cover.settle(cell, refused=False)
