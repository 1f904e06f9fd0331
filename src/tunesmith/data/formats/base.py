"""What a format is: which columns it reads, what a row of them means, and how an example becomes such a row."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, get_type_hints

from ...config.registry import Registry
from ..example import Example

if TYPE_CHECKING:
    from ..reading.detect import Sample

Row = dict[str, Any]
Column = Annotated[str, "a column that must be there"]
Maybe = Annotated[str | None, "a column that may be there; null for none"]


class Format:
    """Reads and writes rows. Its options are the names of the columns, and what else must be said of them."""

    name: ClassVar[str]
    detected: ClassVar[bool] = True
    """Whether a source may be taken for this format by its columns."""

    def read(self, row: Row) -> Example:
        """What the row means; a ValueError says what is wrong with it."""
        raise NotImplementedError

    def write(self, example: Example, as_turns: bool = False) -> Row:
        """The row that reads as this example; a ValueError says what such a row cannot hold.

        With `as_turns`, what is said stands in lists of turns even where text would do, so that all rows of a file can
        be alike.
        """
        raise ValueError(f"{self.name} reads rows but does not write them; take another format")

    def examples(self, row: Row) -> list[Example]:
        """What the row means, with a ValueError if it lacks a column, or holds something that would be lost."""
        needed, unread = self.watched
        missing = [column for column in needed if column not in row]
        if missing:
            raise ValueError(f"needs the column {', '.join(missing)} (has {', '.join(map(str, row))})")
        lost = [column for column in unread if row.get(column)]
        if lost:
            raise ValueError(f"holds {', '.join(lost)}, which {self.name} does not read; take another format")
        return [self.read(row)]

    @cached_property
    def watched(self) -> tuple[list[str], list[str]]:
        """The columns that a row must have, and those that would be lost if it had them."""
        return self.columns(), [column for column in BESIDE if not hasattr(self, column)]

    @classmethod
    def told(cls, sample: Sample) -> Iterator[Format]:
        """Each way in which rows such as these can be read in this format."""
        if all(sample.kind(column) for column in cls().columns()):
            yield cls()

    @classmethod
    def having(cls, **options: Any) -> Format:
        """The format with these options."""
        made: Any = cls
        return made(**options)

    def columns(self) -> list[str]:
        """The columns that a row must have."""
        return [getattr(self, option) for option, hint in hints(type(self)).items() if hint == Column]

    def read_columns(self) -> list[str]:
        """The columns that it looks at where they are there."""
        optional = [getattr(self, option) for option, hint in hints(type(self)).items() if hint == Maybe]
        return [*self.columns(), *(column for column in optional if column)]

    def code(self) -> list[Path]:
        """Files that decide what a row means."""
        return []

    def described(self) -> str:
        """How it reads, for people."""
        return f"read as {self.name}" + (f", from {', '.join(self.columns())}" if self.columns() else "")


BESIDE = ("images", "videos", "audios", "tools")
"""Columns that change what a dialogue means, whatever format it is in."""


@cache
def hints(cls: type[Format]) -> dict[str, Any]:
    """The options of a format and their types."""
    found = get_type_hints(cls, include_extras=True)
    return {field.name: found[field.name] for field in fields(cls)}  # pyright: ignore[reportArgumentType] - a record is a dataclass


format_: Registry[Format] = Registry("format", "tunesmith.data.formats")


def given(row: Row, column: str | None) -> bool:
    """Whether a column that may be there says something."""
    return column is not None and row.get(column) not in (None, "", [])


def text_in(row: Row, column: str) -> str:
    """The text of a column; a number is taken as it is written, anything else is refused."""
    value = row.get(column)
    if isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return str(value)
    raise ValueError(f"column '{column}' must be text (got {shown(value)})")


def list_in(row: Row, column: str) -> list[Any]:
    """The list of a column; it may be written as JSON, as it must be in a table of texts."""
    value = row.get(column)
    if isinstance(value, str):
        value = json_in(value, f"column '{column}'")
    if isinstance(value, list):
        return value
    raise ValueError(f"column '{column}' must be a list (got {shown(value)})")


def shown(value: Any) -> str:
    """A value in an error: short, and null as JSON calls it."""
    text = "null" if value is None else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def json_in(text: str, what: str) -> Any:
    """The value of a JSON text. A key that is there twice is refused: one of its values would be lost."""
    try:
        return json.loads(text, object_pairs_hook=unique)
    except RecursionError:
        raise ValueError(f"{what} is JSON that is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{what} is not JSON: {error.msg} at character {error.pos + 1} of {shown(text)}") from None
    except ValueError as error:
        raise ValueError(f"{what} cannot be taken as JSON: {error}") from None


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for n, (key, _) in enumerate(pairs) if key in dict(pairs[:n]))
        raise ValueError(f"the key '{twice}' is there twice")
    return found


def json_out(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


NOTHING = Example()


def only(example: Example, format_: Format, *held: str) -> None:
    """Refuse to write an example that says more than `held`."""
    more = [
        field.name
        for field in fields(example)
        if field.name not in (*held, "origin") and getattr(example, field.name) != getattr(NOTHING, field.name)
    ]
    if more:
        raise ValueError(f"{format_.name} cannot hold {', '.join(PARTS[name] for name in more)}")


PARTS = {
    "prompt": "a prompt",
    "answers": "answers",
    "liked": "whether people liked it",
    "ratings": "raters' scores",
    "margin": "a margin between answers",
    "agreement": "how many raters agree",
    "truth": "the right answer of a prompt",
    "text": "a plain text",
    "label": "a class",
    "labels": "several classes",
    "score": "a score",
    "tokens": "token ids",
    "tools": "tools",
    "media": "images, videos or audios",
}
"""What the parts of an example are called in errors."""
