"""The cells of the grid: which there are, and a choice of them in which every pair occurs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import combinations, product
from typing import NamedTuple

from ..config.registry import did_you_mean
from ..errors import RecipeError
from ..methods.base import method
from ..objectives.base import objective
from ..precision.base import precision

BATCHES = ("packed", "padded")
Pair = tuple[str, ...]


class Cell(NamedTuple):
    """One way to train."""

    method: str
    objective: str
    precision: str
    batch: str

    @property
    def name(self) -> str:
        return " ".join(self)

    @property
    def pairs(self) -> list[Pair]:
        """What occurs together in it, two at a time."""
        named = zip(Cell._fields, self, strict=True)
        return [(*one, *other) for one, other in combinations(named, 2)]


def known() -> dict[str, tuple[str, ...]]:
    """Every name of every kind."""
    kinds = {"method": method.all(), "objective": objective.all(), "precision": precision.all(), "batch": BATCHES}
    return {kind: tuple(names) for kind, names in kinds.items()}


def cells(chosen: dict[str, Sequence[str]]) -> list[Cell]:
    """All cells of the names that are chosen; of a kind of which none is, all names count."""
    everything = known()
    for kind, names in chosen.items():
        for name in names:
            if name not in everything[kind]:
                raise RecipeError(f"--{kind}: no {kind} '{name}'; {did_you_mean(name, everything[kind])}")
    return [Cell(*one) for one in product(*(chosen.get(kind) or names for kind, names in everything.items()))]


class Cover:
    """Cells, chosen one by one, until all has been tried together, two at a time, that occurs together in any.

    What is refused has not been tried: its pairs are looked for in other cells, until none is left or it is plain which
    pair is to blame.
    """

    def __init__(self, cells: Iterable[Cell]) -> None:
        self.having: dict[Pair, list[Cell]] = {}
        for cell in cells:
            for pair in cell.pairs:
                self.having.setdefault(pair, []).append(cell)
        self.left = dict.fromkeys(self.having)
        self.tried: set[Pair] = set()

    def __iter__(self) -> Iterator[Cell]:
        """Whoever takes a cell says by `settle` what came of it, before taking the next."""
        while self.left:
            pair = next(iter(self.left))
            if self.having[pair]:
                yield max(self.having[pair], key=lambda cell: sum(pair in self.left for pair in cell.pairs))
            else:
                del self.left[pair]

    def settle(self, cell: Cell, refused: bool) -> None:
        """Note that a cell was tried, or refused."""
        for pair in cell.pairs:
            self.having[pair].remove(cell)
        if not refused:
            self.tried |= set(cell.pairs)
        doubtful = [pair for pair in cell.pairs if pair not in self.tried and pair in self.left]
        for pair in cell.pairs:
            self.left.pop(pair, None)
        if len(doubtful) > 1:  # once the others are tried, one is left that is to blame
            self.left |= dict.fromkeys(doubtful)


def refused_ones(cells: Sequence[Cell], tried: Collection[Pair]) -> list[Cell]:
    """Of cells that are refused beforehand, a few in which every pair occurs that was tried nowhere."""
    cover, chosen = Cover(cells), []
    for pair in cover.left.keys() & tried:
        del cover.left[pair]
    for cell in cover:
        chosen.append(cell)
        cover.tried |= set(cell.pairs)
        cover.settle(cell, refused=False)
    return chosen
