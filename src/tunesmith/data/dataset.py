"""One pass over a source: from rows to sequences, each row with what became of it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from heapq import heappush, heappushpop
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import orjson

from .example import Example
from .item import Item
from .keeping.ahead import ahead
from .reading.media import check_media
from .reading.places import Place
from .reading.source import Row, read
from .rendering.render import NoTarget, Renderer, Tokens, TooLong

if TYPE_CHECKING:
    from ..objectives.base import Targets
    from .formats.base import Format

T = TypeVar("T")
CHUNK = 512
"""Rows that are rendered at once."""
Chunk = list[tuple[str, tuple[str, dict[str, Any]] | str]]
"""Such rows with their splits, as they are sent to other processes: a plain tuple takes half as long as a Row."""


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
    renderer: Renderer | None
    """Without one nothing is rendered."""
    targets: Targets
    seed: int
    measured: int
    """How many held-out rows are kept of each split."""
    held: dict[str, Drawn[Example]] = field(default_factory=dict)
    """The held-out examples, by split."""
    broken: list[str] = field(default_factory=list)
    """Sentences about what could not be read, since the last row that could."""
    offered: int = 0
    """Rows that those to train on were drawn from, where only so many were asked for."""

    def items(self) -> Iterator[Item]:
        """Every row that is trained on or held out, and what could not be read."""
        for some in self.folded(lightened):
            yield from some

    def folded(self, fold: Callable[[list[Item]], T]) -> Iterator[T]:
        """What `fold` makes of some hundred such rows at a time.

        It is called in processes forked from this one, and what it makes is sent here: the less, the quicker.
        """

        def work(chunk: Chunk) -> tuple[list[tuple[str, int, Example]], T]:
            made = self.judged([(split, row if isinstance(row, str) else Row(*row)) for split, row in chunk])
            held = [item for item in made if item.split != "train"]
            return [(one.split, number(digest(one.row)), one.example) for one in held if one.example], fold(made)

        rows = ((split, row if isinstance(row, str) else (row.origin, row.values)) for split, row in self.rows())
        chunks: Iterator[Chunk] = iter(lambda: list(islice(rows, CHUNK)), [])
        for held, folded in ahead(work, chunks):
            for split, key, example in held:
                self.held.setdefault(split, Drawn(self.measured)).add(key, example)
            yield folded

    def read(self, split: str) -> Iterator[Row | str]:
        """The rows of a split's files, and in their places sentences about those that cannot be read."""
        for row in read(self.place.files.get(split, []), self.broken.append):
            if self.broken:
                yield from self.unreadable()
            yield row
        yield from self.unreadable()

    def unreadable(self) -> Iterator[str]:
        while self.broken:
            yield self.broken.pop(0)

    def rows(self) -> Iterator[tuple[str, Row | str]]:
        drawn = None if self.place.most is None else Drawn[Row](self.place.most)
        hashed = self.place.share or self.place.aside or drawn is not None
        for row in self.read("train"):
            if isinstance(row, str):
                yield "train", row
                continue
            content = digest(row) if hashed else b""
            side = self.side(content)
            if side == "train" and drawn is not None:
                drawn.add(number(hashlib.sha256(b"%d " % self.seed + content).digest()), row)
            else:
                yield side, row
        if drawn is not None:
            self.offered = drawn.count
            yield from (("train", row) for _, row in drawn)
        for split in self.place.files:
            if split != "train":
                yield from ((split, row) for row in self.read(split))

    def side(self, content: bytes) -> str:
        """The split of a row to train on, by the hash of its content."""
        share, aside = self.place.share, self.place.aside
        if share and number(content) < share * 2**64:
            return "test"
        return "validation" if aside and number(content) < (share + aside) * 2**64 else "train"

    def judged(self, chunk: list[tuple[str, Row | str]]) -> list[Item]:
        """A few rows, read and those to train on rendered."""
        read_ = [row if isinstance(row, str) else self.meant(row) for _, row in chunk]
        train = [
            one
            for found, (split, _) in zip(read_, chunk, strict=True)
            if split == "train" and not isinstance(found, str)
            for one in found
        ]
        rendered = iter(self.renderer.render_many(train, self.targets) if self.renderer else [[]] * len(train))
        made = []
        for (split, row), found in zip(chunk, read_, strict=True):
            if isinstance(row, str):
                made.append(Item(Row(origin_of(row), {}), "train", fault=row))
            elif isinstance(found, str):
                made.append(Item(row, split, fault=found))
            elif not found:
                made.append(Item(row, split))
            elif split == "train":
                made += [self.trained(row, example, next(rendered)) for example in found]
            else:
                made += [Item(row, split, example) for example in found]
        return made

    def trained(self, row: Row, example: Example, made: list[Tokens] | NoTarget) -> Item:
        if isinstance(made, TooLong):
            return Item(row, "train", example, too_long=made)
        if isinstance(made, NoTarget):
            return Item(row, "train", example, fault=f"{row.origin}: {made}")
        return Item(row, "train", example, tuple(made))

    def meant(self, row: Row) -> list[Example] | str:
        """What a row means, or what is wrong with it."""
        way = self.place.format
        try:
            more = {"task": self.place.task} | ({"others": unread(row, way)} if self.targets == "prompts" else {})
            found = [example.read_at(row.origin, **more) for example in way.examples(row.values)]
            for example in found:
                if example.media is not Example.media:
                    check_media(example.media, self.place.media or Path(row.origin).parent)
            return found
        except ValueError as error:
            return f"{row.origin}: cannot be read as {way.name}: {error}"


def unread(row: Row, way: Format) -> dict[str, Any]:
    """The columns that a format does not read, as JSON has them."""
    known = way.read_columns()
    kept = {name: value for name, value in row.values.items() if name not in known}
    return json.loads(json.dumps(kept, default=str))


def lightened(items: list[Item]) -> list[Item]:
    for item in items:
        item.lighten()
    return items


def origin_of(sentence: str) -> str:
    """The file:line that a sentence begins with."""
    found = re.match(r"(.*?:\d+): ", sentence)
    return found[1] if found else ""


encode = json.JSONEncoder(sort_keys=True, ensure_ascii=False, default=str).encode


def digest(row: Row) -> bytes:
    """A hash of a row's content, whatever its place."""
    return hashlib.sha256(spelt(row.values)).digest()


def spelt(values: dict[str, Any]) -> bytes:
    """A row as `encode` writes it; most of it are texts, which orjson writes alike and several times faster."""
    try:
        parts = [
            orjson.dumps(key) + b": " + (orjson.dumps(one) if type(one) is str else encode(one).encode())
            for key, one in sorted(values.items())
        ]
    except (TypeError, UnicodeEncodeError):  # half a character, or a key that is no text
        return encode(values).encode(errors="surrogatepass")
    return b"{" + b", ".join(parts) + b"}"


def number(content: bytes) -> int:
    """A number below 2^64 that any hash is as likely to give as any other."""
    return int.from_bytes(content[:8])
