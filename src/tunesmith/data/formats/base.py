"""What a format is: which columns it needs, and how a row of them is read."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields
from typing import Any, ClassVar

from ...config.registry import Registry
from ...errors import DataError
from ..example import Example

Row = dict[str, Any]


class Format:
    """Reads a row. Its options are the names of the columns it reads."""

    name: ClassVar[str]
    detected: ClassVar[bool] = True
    """Whether a source may be taken for this format by its columns."""
    optional: ClassVar[tuple[str, ...]] = ()
    """Options whose column need not be there."""

    def read(self, row: Row) -> Example:
        """What the row means; a ValueError says what is wrong with it."""
        raise NotImplementedError

    def write(self, example: Example) -> Row:
        """The row that reads as this example; a ValueError says what such a row cannot hold."""
        raise NotImplementedError

    def columns(self) -> list[str]:
        """The columns that a row must have."""
        return [column for option, column in self.named().items() if option not in self.optional]

    def read_columns(self) -> list[str]:
        """The columns that it looks at where they are there."""
        return [*self.columns(), *(self.named()[option] for option in self.optional)]

    def named(self) -> dict[str, str]:
        """Its options and the columns that they name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}  # pyright: ignore[reportArgumentType] - a record is a dataclass


format_: Registry[Format] = Registry("format", "tunesmith.data.formats")


def text_in(row: Row, column: str) -> str:
    """The text of a column; a number is taken as it is written, anything else is refused."""
    value = row.get(column)
    if isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return str(value)
    raise ValueError(f"column '{column}' must be text (got {value!r})")


def detect(columns: Collection[str], path: str) -> Format:
    """The format whose columns are all there; of several, the one that uses the most."""
    found = [entry() for entry in format_.all().values() if entry.detected]
    found = [entry for entry in found if set(entry.columns()) <= set(columns)]
    most = max((len(entry.columns()) for entry in found), default=0)
    match [entry for entry in found if len(entry.columns()) == most]:
        case [entry]:
            return entry
        case []:
            known = "; ".join(f"{name}: {', '.join(f().columns())}" for name, f in format_.all().items() if f.detected)
            raise DataError(
                f"{path}: no format has the columns {', '.join(sorted(columns))}; known are {known}; name the columns"
                " with data.format.name=... and data.format.COLUMN=..., or build prompts with data.format.name=template"
            )
        case several:
            names = ", ".join(f"{entry.name} ({', '.join(entry.columns())})" for entry in several)
            raise DataError(f"{path}: can be read in several ways: {names}; choose with data.format.name=...")
