"""What a rule is: it looks at one row after another, and says what it found."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from ...config.registry import Registry
from ..item import Item

if TYPE_CHECKING:
    from ...objectives.base import Targets
    from ..render import Renderer

Severity = Literal["error", "warning", "note"]


class Said(NamedTuple):
    """A sentence in two languages."""

    en: str
    zh: str


class Places:
    """Where each row looked at stands, in 16 bytes a row."""

    def __init__(self) -> None:
        self.files: dict[str, int] = {}
        self.file, self.line, self.nth = array("i"), array("q"), array("i")
        self.read: list[int] = []
        self.known: list[str] = []

    def add(self, origin: str) -> None:
        file, _, line = origin.rpartition(":")
        if not line.isdecimal():
            file, line = origin, "-1"
        number = self.files.setdefault(file, len(self.files))
        if number == len(self.read):
            self.read.append(0)
        self.file.append(number)
        self.line.append(int(line))
        self.nth.append(self.read[number])
        self.read[number] += 1

    def __len__(self) -> int:
        return len(self.file)

    @property
    def counts(self) -> dict[str, int]:
        """How many rows were looked at of each file."""
        return {file: self.read[at] for file, at in self.files.items()}

    def name(self, number: int) -> str:
        if len(self.known) != len(self.files):
            self.known = list(self.files)
        return self.known[self.file[number]]

    def __getitem__(self, number: int) -> str:
        """file:line of a row, by how many were looked at before it."""
        return self.name(number) + (f":{self.line[number]}" if self.line[number] >= 0 else "")

    def within(self, number: int) -> tuple[str, int]:
        """The file of a row, and how many of its rows came before."""
        return self.name(number), self.nth[number]


Origin = Callable[[int], str]


class Watch:
    """A rule at work on some rows. What it remembers of them is small: hashes and counts, never a row."""

    def look(self, item: Item, number: int, /) -> Said | None:
        """What is to be said of a row, if anything; `number` says how many came before it."""

    def end(self, origin: Origin) -> Iterator[tuple[int, Said]]:
        """What only all rows together show: each with the number of a row; `origin` says where that one stands."""
        yield from ()

    def grave(self, found: int, rows: int) -> bool:
        """Whether so much was found, of so many rows, that it is as severe as the rule says."""
        return found > rows * RARE


RARE = 0.001
"""An error in no more than this share of the rows is told as a warning: it spoils these rows, not the run."""


class Rule:
    """Looks at rows. Its name is its code; its docstring says, in a line, what it finds."""

    name: ClassVar[str]
    severity: ClassVar[Severity] = "warning"
    cheap: ClassVar[bool] = True
    """Whether it runs before every training."""
    removable: ClassVar[bool] = True
    """Whether taking the row out mends it, where it is an error; else the recipe or the model is to blame."""
    reads: ClassVar[Literal["rows", "tokens"]] = "rows"
    """Whether it can do without a tokenizer."""
    zh: ClassVar[str]
    """The docstring in Chinese."""
    explained: ClassVar[Said]
    """Why it matters and what to do."""

    def watch(self, renderer: Renderer | None, targets: Targets) -> Watch:
        """Begin to look at the rows of a run; without a tokenizer there is no renderer."""
        raise NotImplementedError


class Simple(Watch):
    """A watch that remembers nothing."""

    def __init__(self, look: Callable[[Item, int], Said | None]) -> None:
        self.look = look  # one call less for each row and rule


rule: Registry[Rule] = Registry("rule", "tunesmith.data.lint")
