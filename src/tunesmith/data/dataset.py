"""One pass over a source: from rows to sequences, each row with what became of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from heapq import heappush, heappushpop
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .example import Example
from .formats.base import Format
from .item import Item
from .places import Place
from .render import NoTarget, Renderer
from .source import Row, read

if TYPE_CHECKING:
    from ..objectives.base import Targets

T = TypeVar("T")

CHUNK = 512
"""Rows that are rendered at once."""


class Drawn(Generic[T]):
    """Of all things added those with the smallest keys, at most so many, in the order in which they came."""

    def __init__(self, most: int) -> None:
        self.most, self.count = most, 0
        self.heap: list[tuple[int, int, T]] = []

    def add(self, key: int, thing: T) -> None:
        entry = -key, -self.count, thing
        self.count += 1
        if len(self.heap) < self.most:
            heappush(self.heap, entry)
        else:
            heappushpop(self.heap, entry)

    def __len__(self) -> int:
        return len(self.heap)

    def __iter__(self) -> Iterator[tuple[int, T]]:
        return ((-key, thing) for key, _, thing in sorted(self.heap, key=lambda entry: -entry[1]))


@dataclass
class Pass:
    """Reads a source from beginning to end.

    Rows are held out and drawn by hashes of their content, so that each stays on its side when others are added.
    """

    place: Place
    renderer: Renderer
    targets: Targets
    seed: int
    measured: int
    """How many held-out rows are kept of each split."""
    held: dict[str, Drawn[Example]] = field(default_factory=dict)
    """The held-out examples, by split."""

    def items(self) -> Iterator[Item]:
        """Every row that is trained on or held out."""
        rows = self.rows()
        while chunk := list(islice(rows, CHUNK)):
            yield from self.judged(chunk)

    def rows(self) -> Iterator[tuple[str, Row]]:
        drawn = None if self.place.most is None else Drawn[Row](self.place.most)
        for row in read(self.place.files.get("train", [])):
            content = digest(row) if self.place.share or drawn is not None else b""
            if self.place.share and number(content) < self.place.share * 2**64:
                yield "test", row
            elif drawn is not None:
                drawn.add(number(hashlib.sha256(b"%d " % self.seed + content).digest()), row)
            else:
                yield "train", row
        if drawn is not None:
            yield from (("train", row) for _, row in drawn)
        for split, files in self.place.files.items():
            if split != "train":
                yield from ((split, row) for row in read(files))

    def judged(self, chunk: list[tuple[str, Row]]) -> Iterator[Item]:
        """A few rows, read and those to train on rendered."""
        read_ = [self.example(row) for _, row in chunk]
        train = [
            one for one, (split, _) in zip(read_, chunk, strict=True) if isinstance(one, Example) and split == "train"
        ]
        rendered = iter(self.renderer.render_many(train, self.targets))
        for (split, row), one in zip(chunk, read_, strict=True):
            if isinstance(one, str):
                yield Item(row, split, fault=one)
            elif split != "train":
                self.held.setdefault(split, Drawn(self.measured)).add(number(digest(row)), one)
                yield Item(row, split, one)
            else:
                made = next(rendered)
                if isinstance(made, NoTarget):
                    yield Item(row, split, one, fault=f"{row.origin}: {made}")
                else:
                    yield Item(row, split, one, tuple(made))

    def example(self, row: Row) -> Example | str:
        """What a row means, or what is wrong with it."""
        way = self.place.format
        try:
            check(way, row.values)
            return replace(way.read(row.values), origin=row.origin)
        except ValueError as error:
            return f"{row.origin}: cannot be read as {way.name}: {error}"


def check(format_: Format, values: dict[str, Any]) -> None:
    """Refuse a row that lacks a column, or holds what would be lost."""
    missing = [column for column in format_.columns() if column not in values]
    if missing:
        raise ValueError(f"needs the column {', '.join(missing)} (has {', '.join(values)})")
    lost = [column for column in ("images", "videos", "audios", "tools") if values.get(column)]
    if lost:
        raise ValueError(f"holds {', '.join(lost)}, which cannot be learnt from yet")


def digest(row: Row) -> bytes:
    """A hash of a row's content, whatever its place."""
    text = json.dumps(row.values, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()


def number(content: bytes) -> int:
    """A number below 2^64 that any hash is as likely to give as any other."""
    return int.from_bytes(content[:8])
