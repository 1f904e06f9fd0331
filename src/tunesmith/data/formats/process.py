"""Rows that a function of the user's own makes into others."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from ...code import function_of, line, said
from ...errors import DataError
from ..example import Example
from .base import Format, Row, format_, shown


@format_("process")
class Process(Format):
    """Any rows: a function of your own gets each, and gives a row, or a list of rows, that other formats know."""

    file: str
    """The Python file of the function. It is run: name one that you trust."""
    function: str = "process"
    """The function in it: takes a row, gives a row of any known format, such as {input_ids, labels}; or a list."""

    detected: ClassVar[bool] = False

    def examples(self, row: Row) -> list[Example]:
        """What the rows mean that the function makes of this one."""
        made = self.called(row)
        rows = made if isinstance(made, list) else [made]
        return [example for made in rows for example in self.meant(made)]

    def read(self, row: Row) -> Example:
        """The one example of a row."""
        found = self.examples(row)
        if len(found) != 1:
            raise ValueError(f"{self.function} of {self.file} made {len(found)} rows of it where one is needed")
        return found[0]

    def code(self) -> list[Path]:
        """The file of the function."""
        return [Path(self.file)]

    def described(self) -> str:
        """How it reads, for people."""
        return f"read by {self.function} of {self.file}, which is run as it is"

    def called(self, row: Row) -> Any:
        """What the function makes of a row."""
        function = self.loaded
        try:
            return function(deepcopy(row))
        except (Exception, SystemExit) as error:
            raise ValueError(f"{self.function} of {self.file}{line(error, self.file)} raised {said(error)}") from error

    def meant(self, row: Any) -> list[Example]:
        if not isinstance(row, dict):
            raise ValueError(
                f"{self.function} of {self.file} must give a row, which is a dict of columns, or a list of rows, empty"
                f" to leave this one out (gave {shown(row)})"
            )
        row = {column: listed(value) for column, value in row.items()}
        try:
            return self.way(row).examples(row)
        except ValueError as error:
            raise ValueError(f"what {self.function} of {self.file} made of it: {error}") from None

    def way(self, row: Row) -> Format:
        """The format of a row that the function made; rows of the same columns are in the same."""
        from ..reading.detect import detect

        columns = frozenset(row)
        if columns not in self.ways:
            try:
                self.ways[columns] = detect([row], "its row")[0]
            except DataError as error:
                raise ValueError(str(error)) from None
        return self.ways[columns]

    @cached_property
    def ways(self) -> dict[frozenset[str], Format]:
        return {}

    @cached_property
    def loaded(self) -> Callable[[Row], Any]:
        """The function, out of its file."""
        return function_of(self.file, self.function, "data.format.file")


def listed(value: Any) -> Any:
    """A value as JSON has it: tensors and arrays become lists, and so do tuples."""
    if isinstance(value, tuple):
        return [*value]
    if not isinstance(value, type) and hasattr(value, "tolist"):
        return value.tolist()
    return value
