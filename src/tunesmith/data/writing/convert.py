"""Rows of one format as rows of another, in a file of any kind; nothing is lost, or nothing is written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

from ...config.choice import Choice
from ...config.record import record
from ...errors import DataError, RecipeError
from ...files import whole
from ..example import Example, Media, Message
from ..formats.auto import Auto
from ..formats.base import Format, format_
from ..formats.messages import Messages
from ..reading.detect import LOOKED_AT, detect
from ..reading.source import read
from .writers import WRITERS

AnySource = Annotated[Format, Choice(format_, "auto")]
AnyTarget = Annotated[Format, Choice(format_, "messages")]


@record
class Conversion:
    """How rows are read, and how they are written."""

    source: AnySource = Auto()
    """The format that they are in; detected unless given."""
    target: AnyTarget = Messages()
    """The format to write them in."""


@dataclass
class Converted:
    """What became of a file's rows."""

    rows: int = 0
    reading: str = ""
    """How they were read, and why so."""
    unread: dict[str, None] = field(default_factory=dict)
    """Columns that the format does not read, and that are therefore not in the file written."""
    moved: Path | None = None
    """The folder that paths of media start from, if that is not the one of the file written."""


def convert(files: list[Path], out: Path, how: Conversion) -> Converted:
    """Write the rows of files into one file, which is read back and compared before it stands at `out`."""
    writer = WRITERS.get(out.suffix.lower())
    if writer is None:
        raise RecipeError(f"{out}: cannot be written; its name must end with one of {', '.join(WRITERS)}")
    if out.exists():
        raise RecipeError(f"{out}: is there already; name another file, or remove it")
    if type(how.target).write is Format.write:
        raise RecipeError(f"--to: {how.target.name} is for reading alone; take {', '.join(written())}")
    first = [row.values for row, _ in zip(read(files), range(LOOKED_AT), strict=False)]
    if not first:
        raise DataError(f"{files[0]}: holds no rows; expected at least one")
    told = isinstance(how.source, Auto)
    source, reading = detect(first, str(files[0])) if told else (how.source, how.source.described())
    work = Work(files, source, how.target, Converted(reading=reading))
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as room:
        made = Path(room) / out.name
        try:
            work.check()
            writer(made, work.rows)
        except ValueError as error:
            raise DataError(f"{files[0]}: cannot be written as {out.suffix}: {error}") from None
        work.compare(made, out)
        with whole(out) as beside:
            made.replace(beside)
    if work.done.moved and work.done.moved.resolve() == out.parent.resolve():
        work.done.moved = None
    return work.done


def written() -> list[str]:
    """The formats that can be written."""
    return [name for name, entry in format_.all().items() if entry.write is not Format.write]


@dataclass
class Work:
    """A conversion under way. The rows are read anew for each look at them, so that they need not fit into memory."""

    files: list[Path]
    source: Format
    target: Format
    done: Converted
    as_turns: bool = False
    """Whether texts are written as turns too: some rows have lists in a column where others have texts."""
    seals: list[bytes] = field(default_factory=list)
    """A hash of each example, in order."""

    def examples(self) -> Iterator[Example]:
        for origin, values in read(self.files):
            try:
                yield from (replace(example, origin=origin) for example in self.source.examples(values))
            except ValueError as error:
                raise DataError(f"{origin}: cannot be read as {self.source.name}: {error}; mend the row") from None

    def rows(self) -> Iterator[dict[str, Any]]:
        for example in self.examples():
            try:
                yield self.target.write(example, self.as_turns)
            except ValueError as error:
                raise DataError(f"{example.origin}: cannot be written as {self.target.name}: {error}") from None

    def check(self) -> None:
        """Look at every row once: whether it can be written, and whether all are alike."""
        read_columns = self.source.read_columns()
        if read_columns:
            for row in read(self.files):
                self.done.unread |= {column: None for column in row.values if column not in read_columns}
        kinds: dict[str, set[bool]] = {}
        for row in self.rows():
            for column, value in row.items():
                kinds.setdefault(column, set()).add(isinstance(value, list))
        self.as_turns = any(len(both) > 1 for both in kinds.values())
        for example in self.examples():
            self.done.unread |= {f"{key} of turns": None for turn in turns(example) for key in turn.unread}
            self.seals.append(seal(example))
            if example.media != Media():
                self.done.moved = self.files[0].parent
        self.done.rows = len(self.seals)

    def compare(self, made: Path, out: Path) -> None:
        """Read back what was written: it must mean what it meant."""
        seals = iter(self.seals)
        for row in read([made]):
            where = f"{out}:{row.origin.rpartition(':')[2]}"
            try:
                [example] = self.target.examples(row.values)
                same = seal(example) == next(seals, None)
            except ValueError as error:
                raise DataError(f"{where}: {self.lost(out)}: {error}") from None
            if not same:
                raise DataError(f"{where}: {self.lost(out)}; write .jsonl, or take another format")
        if next(seals, None):
            raise DataError(f"{out}: {self.lost(out)}: a row is missing")

    def lost(self, out: Path) -> str:
        return f"nothing was written, for a {out.suffix} file of {self.target.name} would not read back as it was"


def turns(example: Example) -> tuple[Message, ...]:
    return (*example.prompt, *(turn for answer in example.answers for turn in answer.messages))


def seal(example: Example) -> bytes:
    return blake2b(repr(replace(example, origin="")).encode("utf-8", "surrogatepass"), digest_size=16).digest()
