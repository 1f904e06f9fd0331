"""YAML 1.2, read so that nothing in it can be mistaken: each value with its line, nothing twice, nothing executed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from ..errors import RecipeError

MOST_BYTES, MOST_DEPTH, MOST_NODES, MOST_DIGITS = 2**20, 32, 20_000, 40
TOO_LARGE = "is larger than 1 MiB; a recipe is a few lines"
TOO_DEEP = "is nested too deep, or repeats itself too often"
Path = tuple[str, ...]

# The core schema of YAML 1.2 (10.3.2): these, and nothing else, are more than text.
WORDS = {"": None, "~": None} | {
    word: value
    for lower, value in {"null": None, "true": True, "false": False}.items()
    for word in (lower, lower.title(), lower.upper())
}
INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
BRACKETED = re.compile(r"""\s*(\[|"|'|\{\s*(\}|["']?[\w.-]+["']?\s*:))""")
NO_NUMBER = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


class Tree(NamedTuple):
    """What a document says, and on which line each key stands, counted from 1."""

    value: dict[str, Any]
    lines: dict[Path, int]


def read_yaml(text: str, name: str) -> Tree:
    """A document as a mapping. `name` is what errors call it. Raises RecipeError as `name:line: what`."""
    reader = Reader(name)
    root = reader.parse(text)
    if root is None or reader.is_empty(root):
        return Tree({}, {})
    if not reader.is_a(root, "MappingStart"):
        raise reader.fault(root, "must be keys with values, such as `train: {seed: 1}`")
    return Tree(reader.value(root, (), 0)[0], reader.lines)


def read_word(text: str, name: str) -> Any:
    """The value of a word on the command line: `0.1`, `true`, `null`, `[a, b]`, `{a: 1}`, or else just its text.

    Only what is bracketed or quoted is read as YAML; `Is it good: {text} # yes` and `{text}` stay as they are.
    """
    if BRACKETED.match(text):
        reader = Reader(name, lined=False)
        root = reader.parse(text)
        return None if root is None else reader.value(root, (), 0)[0]
    value = plain(text.strip()) if len(text) <= MOST_DIGITS else text
    return text if isinstance(value, str) else value


def plain(text: str) -> Any:
    """What an unquoted word means. Raises ValueError for a number that is none."""
    if text in WORDS:
        return WORDS[text]
    if INTEGER.fullmatch(text):
        if len(text) > MOST_DIGITS:
            raise ValueError
        return int(text, 0 if text[:2] in ("0o", "0x") else 10)
    if NUMBER.fullmatch(text):
        return float(text)
    return float(text.replace(".", "")) if NO_NUMBER.fullmatch(text) else text


class Reader:
    """Walks the events of a document, and refuses what a recipe does not need."""

    def __init__(self, name: str, lined: bool = True) -> None:
        self.name, self.lined = name, lined
        self.lines: dict[Path, int] = {}
        self.anchors: dict[str, int] = {}
        self.events: list[Any] = []
        self.seen = 0

    def parse(self, text: str) -> int | None:
        """Where the document's root stands among the events; None if there is no document."""
        from ruamel.yaml import YAML
        from ruamel.yaml.error import YAMLError

        if len(text.encode(errors="replace")) > MOST_BYTES:
            raise RecipeError(f"{self.name}: {TOO_LARGE}")
        try:
            self.listen(YAML(typ="safe", pure=True).parse(text))
        except YAMLError as error:
            mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
            problem = getattr(error, "problem", None) or str(error).split("\n")[0]
            raise RecipeError(f"{self.place(mark)}: is not YAML: {problem}") from None
        starts = [at for at in range(len(self.events)) if self.is_a(at, "DocumentStart")]
        if len(starts) > 1:
            raise self.fault(starts[1], "must be one document; take the line --- away")
        if starts and (self.events[starts[0]].version or self.events[starts[0]].tags):
            raise self.fault(starts[0], "must not give orders to the reader; take the lines that begin with % away")
        return starts[0] + 1 if starts else None

    def listen(self, events: Iterable[Any]) -> None:
        """Keep the events, for as long as they are not nested too deep: of brackets in brackets without an end, each
        takes the reader longer than the one before."""
        depth = 0
        for event in events:
            self.events.append(event)
            kind = type(event).__name__
            depth += kind in ("MappingStartEvent", "SequenceStartEvent")
            depth -= kind in ("MappingEndEvent", "SequenceEndEvent")
            if depth > MOST_DEPTH + 1:
                raise self.fault(-1, TOO_DEEP)

    def is_a(self, at: int, kind: str) -> bool:
        return type(self.events[at]).__name__ == f"{kind}Event"

    def is_empty(self, at: int) -> bool:
        return self.is_a(at, "Scalar") and self.events[at].value == "" and not self.events[at].style

    def place(self, mark: Any) -> str:
        return f"{self.name}:{mark.line + 1}" if mark and self.lined else self.name

    def fault(self, at: int, what: str) -> RecipeError:
        return RecipeError(f"{self.place(self.events[at].start_mark)}: {what}")

    def value(self, at: int, path: Path, depth: int) -> tuple[Any, int]:
        """The value that begins at an event, and where the next one begins."""
        self.seen += 1
        if depth > MOST_DEPTH or self.seen > MOST_NODES:
            raise self.fault(at, TOO_DEEP)
        event = self.events[at]
        if self.is_a(at, "Alias"):
            if event.anchor not in self.anchors:
                raise self.fault(
                    at, f"*{event.anchor} stands for nothing; write &{event.anchor} before what it repeats"
                )
            return self.value(self.anchors[event.anchor], path, depth + 1)[0], at + 1
        if event.tag is not None:
            raise self.fault(at, f"the tag {event.tag} is not allowed; write a plain value")
        if event.anchor:
            self.anchors[event.anchor] = at
        if self.is_a(at, "MappingStart"):
            return self.mapping(at + 1, path, depth)
        if self.is_a(at, "SequenceStart"):
            return self.sequence(at + 1, path, depth)
        return self.scalar(at), at + 1

    def scalar(self, at: int) -> Any:
        event = self.events[at]
        if event.style:  # quoted, or a block: text whatever it looks like
            return event.value
        try:
            return plain(event.value)
        except ValueError:
            raise self.fault(at, f"the number {event.value:.20}... is too long") from None

    def sequence(self, at: int, path: Path, depth: int) -> tuple[list[Any], int]:
        found: list[Any] = []
        while not self.is_a(at, "SequenceEnd"):
            item, at = self.value(at, (*path, str(len(found))), depth + 1)
            found.append(item)
        return found, at + 1

    def mapping(self, at: int, path: Path, depth: int) -> tuple[dict[str, Any], int]:
        found: dict[str, Any] = {}
        while not self.is_a(at, "MappingEnd"):
            key = self.value(at, path, depth)[0] if self.is_a(at, "Scalar") else None
            if not isinstance(key, str) or key == "<<":
                raise self.fault(at, f"a key must be a word (got {getattr(self.events[at], 'value', '...')!r:.40})")
            if key in found:
                raise self.fault(at, f"the key {key} stands on line {self.lines[(*path, key)]} already")
            self.lines[(*path, key)] = self.events[at].start_mark.line + 1
            found[key], at = self.value(at + 1, (*path, key), depth + 1)
        return found, at + 1
