"""The sources of a run, found: their files, and how their rows are read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import DataError, RecipeError
from ...files import sha256
from ..formats.auto import Auto
from ..formats.base import Format
from .configs import chosen
from .detect import LOOKED_AT, detect
from .source import Named, Where, read

if TYPE_CHECKING:
    from ...run import Data, Source


@dataclass(frozen=True)
class Place:
    """A source that is there."""

    name: str
    """As the recipe names it."""
    key: str
    """Which of the recipe's sources it is; empty for the first."""
    root: Path
    files: dict[str, list[Path]]
    """By split: train, validation, test."""
    format: Format
    reading: str
    """How its rows are read, and why so."""
    most: int | None = None
    """How many of its rows are trained on."""
    asked: str = "data.max_samples"
    """Which key says so."""
    share: float = 0.0
    """How much of the rows to train on is held out instead."""
    aside: float = 0.0
    """How much more of them is held out for what is measured while training."""
    media: Path | None = None
    """Folder of its images, videos and audios, where it is not that of the file."""
    task: str | None = None
    """Which task its rows are of."""
    unread: tuple[str, ...] = ()
    """Columns of the first row that the format does not look at."""

    def named(self) -> Iterator[tuple[str, Path]]:
        """The files, by their names below the source."""
        for files in self.files.values():
            for file in files:
                inside = file != self.root and file.is_relative_to(self.root)
                outside = file.name if file == self.root else str(file)
                yield file.relative_to(self.root).as_posix() if inside else outside, file

    @cached_property
    def read_through(self) -> dict[str, tuple[str, int]]:
        """Of each file, by its name, the hash and the number of lines."""
        return {name: read_through(file) for name, file in self.named()}


def read_through(file: Path) -> tuple[str, int]:
    made, lines = hashlib.sha256(), 0
    with file.open("rb") as content:
        while block := content.read(2**20):
            made.update(block)
            lines += block.count(b"\n")
    return made.hexdigest(), lines


def sums(found: Sequence[Place]) -> dict[str, str]:
    """The hash of every file that is read, code for reading rows too; those of further sources bear their key."""
    rows = {
        f"{place.key}: {name}" if place.key else name: digest
        for place in found
        for name, (digest, _) in place.read_through.items()
    }
    return rows | {str(file): sha256(file) for place in found for file in place.format.code()}


def places(data: Data, locate: Callable[[str, str | None], Where]) -> list[Place]:
    """Where a run's rows are; what is only measured on comes last. `locate` finds a source by its name and its hash.

    Where there are no held-out rows of a task, a share of each of its sources is held out.
    """
    sources = (data, *data.also)
    shared = data.temperature is not None or any(source.weight != 1 for source in sources)
    if shared and (data.mixing == "concatenate" or len(sources) == 1):
        raise RecipeError(
            "data.weight, data.temperature: say how much of each source is taken where several are interleaved; name"
            " more in data.also and set data.mixing=interleave_under, or leave them out"
        )
    where = [locate(source.path, source.sha256) for source in sources]
    files = [dict(chosen(one, source.subset, source.split)) for one, source in zip(where, sources, strict=True)]
    if data.eval_path:
        for source, found in zip(sources, files, strict=True):
            if source.task == data.task:
                found.pop("test", None)
    apart = {source.task for source, found in zip(sources, files, strict=True) if found.keys() - {"train"}}
    apart |= {data.task} if data.eval_path else set()
    keys = ["", *(f"also.{number}" for number in range(len(data.also)))]
    made = [place(*one) for one in zip(keys, sources, where, files, strict=True)]
    made = [replace(one, share=0.0 if one.task in apart else data.eval_size) for one in made]
    made = [one if "validation" in one.files else replace(one, aside=data.validation_size) for one in made]
    if data.eval_path:
        one = locate(data.eval_path, None)
        rows = [file for found in chosen(one).values() for file in found]
        made.append(replace(place("eval_path", data, one, {"test": rows}), name=data.eval_path, most=None))
    return made


def place(key: str, source: Source, where: Where, files: dict[str, list[Path]]) -> Place:
    """A source with its format: the one that the recipe says, or that comes with it, or that its columns tell."""
    bad: list[str] = []
    first = [row.values for row in islice(read(next(iter(files.values())), bad.append), LOOKED_AT)]
    if not first:
        raise DataError(bad[0] if bad else f"{where}: holds no rows; expected at least one")
    known, most, asked = source.format, source.max_samples, f"data.{f'{key}.' if key else ''}max_samples"
    root = where.path.parent if isinstance(where, Named) else where
    if isinstance(where, Named):
        known = where.format if isinstance(known, Auto) else known
        if most is None:
            most, asked = where.max_samples, "num_samples in its dataset_info.json"
    way, reading = detect(first, str(where)) if isinstance(known, Auto) else (known, known.described())
    unread = tuple(column for column in first[0] if column not in way.read_columns())
    media = Path(source.media_dir).expanduser() if source.media_dir else None
    return Place(source.path, key, root, files, way, reading, most, asked, unread=unread, media=media, task=source.task)
