"""What a rule is: it looks at one row after another, and says what it found."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from ...config.registry import Registry
from ..item import Item
from ..reading.row import Row, place_of

if TYPE_CHECKING:
    from ...objectives.base import Targets
    from ..rendering.render import Renderer

Severity = Literal["error", "warning", "note"]


class Said(NamedTuple):
    """A sentence in two languages."""

    en: str
    zh: str


class Places:
    """Where each row looked at stands, in 16 bytes a row."""

    def __init__(self, items: Iterable[Item] = ()) -> None:
        self.files: dict[str, int] = {}
        self.names: list[str] = []
        self.file, self.line, self.nth = array("i"), array("q"), array("i")
        last, before, nth = Row("", {}), None, 0
        for item in items:
            place = place_of(item.row.origin)
            nth = nth + (item.row is not last) if place == before else 0  # a row of several examples stands there once
            self.nth.append(nth)
            self.file.append(self.numbered(place[0]))
            self.line.append(place[1])
            last, before = item.row, place

    def extend(self, other: Places) -> None:
        """Note rows that come after these."""
        if not len(other):
            return
        beside = len(self) > 0 and self[len(self) - 1] == other[0]
        if beside:  # the next row of a line whose first rows stand here
            first, more = (other.file[0], other.line[0]), self.nth[-1] + 1
            for at in takewhile(lambda n: (other.file[n], other.line[n]) == first, range(len(other))):
                other.nth[at] += more
        files = [self.numbered(name) for name in other.names]
        self.file.extend(map(files.__getitem__, other.file))
        self.line.extend(other.line)
        self.nth.extend(other.nth)

    def numbered(self, file: str) -> int:
        if file not in self.files:
            self.files[file] = len(self.files)
            self.names.append(file)
        return self.files[file]

    def __len__(self) -> int:
        return len(self.file)

    def __getitem__(self, number: int) -> str:
        """file:line of a row, by how many were looked at before it."""
        return self.names[self.file[number]] + (f":{self.line[number]}" if self.line[number] >= 0 else "")

    def within(self, number: int) -> tuple[str, tuple[int, int]]:
        """The file of a row, its line, and how many rows begin before it on that line."""
        return self.names[self.file[number]], (self.line[number], self.nth[number])


Origin = Callable[[int], str]
Words = Callable[[], Said]
"""Makes a sentence, if it is told: of many rows the first few are."""


class Watch:
    """A rule at work on some rows. What it remembers of them is small: hashes and counts, never a row."""

    look: Callable[[Item, int], Said | None] | None = None
    """What is to be said of a row by itself, if anything."""

    def begin(self) -> None:
        """Forget what `look` saw: other rows come, a few hundred. These may be looked at in another process."""

    def gather(self, items: Sequence[Item]) -> Any:
        """What is to be remembered of some rows, which may be in another process; None for nothing."""

    def take(self, gathered: Any, first: int) -> None:
        """Remember it; `first` says how many rows came before these."""

    def end(self, origin: Origin) -> Iterator[tuple[int, Said | Words]]:
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
    across: ClassVar[bool] = False
    """Whether it compares rows of all sources; before a training this is done once these are put together."""
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
