"""Rows that a function of the user's own makes into others."""

from __future__ import annotations

import sys
from collections.abc import Callable
from copy import deepcopy
from functools import cached_property
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from traceback import extract_tb
from typing import Any, ClassVar

from ...errors import DataError, RecipeError
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
            raise ValueError(f"{self.function} of {self.file}{self.line(error)} raised {said(error)}") from error

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
        where = f"data.format.file: {self.file}"
        file = Path(self.file)
        if not file.is_file():
            raise RecipeError(f"{where}: no such file; name the Python file that has the function {self.function}")
        spec = spec_from_file_location(f"tunesmith_process_{file.stem}", file)
        if spec is None or spec.loader is None:
            raise RecipeError(f"{where}: is not a Python file; its name must end with .py")
        module = module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses and such look for the module of what they decorate
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            raise RecipeError(f"{where}{self.line(error)} cannot be loaded: {said(error)}") from error
        function = getattr(module, self.function, None)
        if not callable(function):
            raise RecipeError(f"{where}: has no function {self.function}; name it with data.format.function=...")
        return function

    def line(self, error: BaseException) -> str:
        """The last line of the user's file that led to an error."""
        if isinstance(error, SyntaxError) and error.filename == self.file:
            return f":{error.lineno}"
        ours = str(Path(self.file))
        lines = [frame.lineno for frame in extract_tb(error.__traceback__) if frame.filename in (ours, self.file)]
        return f":{lines[-1]}" if lines else ""


def said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def listed(value: Any) -> Any:
    """A value as JSON has it: tensors and arrays become lists, and so do tuples."""
    if isinstance(value, tuple):
        return [*value]
    if not isinstance(value, type) and hasattr(value, "tolist"):
        return value.tolist()
    return value
