"""Rows of JSON: one a line, or all in one list. Whatever file a value stands in, `value` reads it."""

import json
import re
from codecs import BOM_UTF8
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from ...errors import DataError
from ..formats.base import shown
from .row import LONGEST, Bad, Row, too_long
from .stream import Characters, lines, opened, readline, text_of

DEEPEST = 100
"""Lists and objects within each other."""
KEY = re.compile(rb'"[ \t\r\n]*:')
COLUMNS = {
    "messages", "conversations", "prompt", "completion", "chosen", "rejected", "history", "tools", "functions",
    "images", "videos", "audios",
}  # fmt: skip
"""Whose lists of objects are part of a row, never rows themselves."""


def jsonl(file: Path, bad: Bad) -> Iterator[Row]:
    """One object a line."""
    name = str(file)
    for number, line in lines(file, bad):
        if line.isspace():
            continue
        try:
            yield Row(f"{name}:{number}", row(line.rstrip()))
        except ValueError as error:
            bad(fault(file, number, line, error))


def row(text: bytes) -> dict[str, Any]:
    """The object that a text is; a ValueError says what is wrong with it."""
    found = value(text)
    if not isinstance(found, dict):
        raise ValueError(f"must be an object of columns (got {shown(found)})")
    return found


def value(text: bytes) -> Any:
    """What a JSON text says; a ValueError refuses one that could be read in two ways.

    orjson is several times faster than the json module and refuses NaN and half surrogates, but it rounds whole numbers
    of more than 64 bits, and keeps one of two equal keys.
    """
    found = orjson.loads(text)
    keys, rounded = look(found)
    # A quote before a colon ends a key, or stands in a text: only where there are more than keys need we look closely.
    if rounded or len(KEY.findall(text)) != keys:
        json.loads(text, object_pairs_hook=once, parse_int=fits)
    return found


def look(found: Any) -> tuple[int, bool]:
    """How many keys there are, and whether a number may have been rounded."""
    keys, depth, rounded, level = 0, 0, False, [found]
    while level:
        below = []
        for one in level:
            if type(one) is dict:
                keys += len(one)
                below += [inner for inner in one.values() if type(inner) is not str]
            elif type(one) is list:
                below += [inner for inner in one if type(inner) is not str]
            elif type(one) is float and abs(one) >= 2**63:
                rounded = True
        level, depth = below, depth + 1
        if depth > DEEPEST:
            raise ValueError(f"is nested more than {DEEPEST} deep")
    return keys, rounded


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = {}
    for key, inner in pairs:
        if key in found:
            raise ValueError(twice(key))
        found[key] = inner
    return found


def twice(key: str) -> str:
    return f"has the key {json.dumps(key, ensure_ascii=False)} twice in one object; keep one of them"


def fits(digits: str) -> int:
    if len(digits) > 20 or not -(2**63) <= int(digits) < 2**64:
        raise ValueError(f"holds a whole number of more than 64 bits ({digits:.30}); write it in quotes, as text")
    return int(digits)


def fault(file: Path, number: int, text: bytes, error: ValueError) -> str:
    """The sentence about a text that is no row."""
    if not isinstance(error, json.JSONDecodeError):
        return f"{file}:{number}: {error}"
    try:
        text_of(file, number, text)
    except ValueError as foreign:
        return str(foreign)
    return f"{file}:{number + error.lineno - 1}: is not JSON: {error.msg} at column {error.colno}"


# --- one text of JSON -------------------------------------------------------------------------------------------------


def array(file: Path, bad: Bad) -> Iterator[Row]:
    """The objects of one list, which may be a value of one object; or one object a line, in a file that is named .json.

    They are read one by one, so that each has its line and only one need be held.
    """
    with opened(file) as content:
        text = Json(file, content)
        first = text.peek()
        if not first:
            return
        if first == "{" and one_a_line(file):
            yield from jsonl(file, bad)
            return
        if first not in "[{":
            raise DataError(f"{file}:{text.here()}: must begin with [ or {{ (begins with {first!r})")
        yield from text.rows(bad) if first == "[" else text.wrapped(bad)
        if text.peek():
            raise DataError(
                f"{file}:{text.here()}: goes on after its end; expected one list, or one whole object on each line"
            )


def one_a_line(file: Path) -> bool:
    """Whether the first line could be a whole object, and the next one begins another."""
    first = b""
    with opened(file) as content:
        while line := readline(file, content, 1):
            line = line.removeprefix(BOM_UTF8).strip()
            if first and line:
                return line.startswith(b"{")
            if line and not (line.startswith(b"{") and line.endswith(b"}")):
                return False
            first = line
    return False


class Json(Characters):
    """A text of JSON, taken apart from its front."""

    ends = json.JSONDecoder(parse_int=float)
    """Tells where a value ends; what it is, says `value`."""

    def peek(self, beyond: int = 0) -> str:
        """The next character that is no space, so many after `at`; none at the end."""
        while True:
            while self.at + beyond < len(self.text):
                if self.text[self.at + beyond] not in " \t\r\n":
                    return self.text[self.at + beyond]
                if beyond:
                    beyond += 1
                else:
                    self.at += 1
            if not self.more():
                return ""

    def expect(self, *known: str) -> str:
        """Take the next character, which must be one of those known."""
        found = self.peek()
        if found not in known:
            raise self.broken(f"expected {' or '.join(known)}, found {found or 'the end of the file'}")
        self.at += 1
        return found

    def broken(self, why: str) -> DataError:
        return DataError(f"{self.file}:{self.here()}: is not JSON: {why} at column {self.column()}")

    def next(self) -> bytes:
        """The text of the next value."""
        self.peek()
        while True:
            try:
                _, end = self.ends.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                if self.certain(error) or not self.more():
                    self.at = error.pos
                    raise self.broken(error.msg) from None
                continue
            except RecursionError:
                raise DataError(f"{self.file}:{self.here()}: is nested more than {DEEPEST} deep") from None
            if end < len(self.text) or not self.more():
                found, self.at = self.text[self.at : end], end
                return found.encode("utf-8")

    def certain(self, error: json.JSONDecodeError) -> bool:
        """Whether more text would not mend it."""
        return not error.msg.startswith("Unterminated") and error.pos + 20 < len(self.text)

    def rows(self, bad: Bad) -> Iterator[Row]:
        """The objects of a list."""
        self.expect("[")
        comma = "," if self.peek() != "]" else self.expect("]")
        while comma == ",":
            self.peek()
            number, text = self.here(), self.next()
            try:
                if len(text) > LONGEST:
                    raise DataError(too_long(self.file, number))
                yield Row(f"{self.file}:{number}", row(text))
            except ValueError as error:
                bad(fault(self.file, number, text, error))
            comma = self.expect(",", "]")

    def wrapped(self, bad: Bad) -> Iterator[Row]:
        """The objects of the one list of objects that an object holds; where it holds none, it is a row itself."""
        number, found, values = self.here(), "", {}
        self.expect("{")
        comma = "," if self.peek() != "}" else self.expect("}")
        while comma == ",":
            key = self.key()
            if key in values:
                raise DataError(f"{self.file}:{self.here()}: {twice(key)}")
            values[key] = b""
            if key in COLUMNS or self.peek() != "[" or self.peek(beyond=1) != "{":
                values[key] = self.next()
            elif found:
                raise DataError(f"{self.file}:{self.here()}: holds two lists of rows, {found} and {key}; keep one")
            else:
                found = key
                yield from self.rows(bad)
            if sum(map(len, values.values())) > LONGEST:
                raise DataError(too_long(self.file, number))
            comma = self.expect(",", "}")
        if not found:
            yield from self.single(number, values, bad)

    def key(self) -> str:
        if self.peek() != '"':
            raise self.broken(f'expected a key in ", found {self.peek() or "the end of the file"}')
        text = self.next()
        try:
            key = value(text)
        except ValueError as error:
            raise DataError(fault(self.file, self.here(), text, error)) from None
        self.expect(":")
        return key

    def single(self, number: int, texts: dict[str, bytes], bad: Bad) -> Iterator[Row]:
        """An object that is a row itself."""
        try:
            row = Row(f"{self.file}:{number}", {key: value(text) for key, text in texts.items()})
        except ValueError as error:
            bad(f"{self.file}:{number}: {error}")
        else:
            yield row
