"""Which format rows are in: told from their columns and from what these hold, with the reason."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import groupby
from typing import Any

from ...errors import DataError
from ..formats.base import Format, Row, format_

LOOKED_AT = 200
"""Rows that a format is told from."""
SELDOM = 10
"""A column counts that at least one row in so many has."""
TURNS = "a list of turns"
AS_JSON = "JSON of a list of turns"
NUMBERS = ("a whole number", "a number")


@dataclass(frozen=True)
class Sample:
    """The first rows of a source, by what their columns hold."""

    rows: Sequence[Row]

    @cached_property
    def kinds(self) -> dict[str, str]:
        """What each column holds, in words: what most of its values are."""
        found: dict[str, Counter[str]] = {}
        for row in self.rows:
            for column, value in row.items():
                if value is not None:
                    found.setdefault(column, Counter())[kind_of(value)] += 1
        often = {column: counts for column, counts in found.items() if counts.total() * SELDOM >= len(self.rows)}
        return {column: counts.most_common(1)[0][0] for column, counts in often.items()}

    def kind(self, column: str) -> str:
        return self.kinds.get(column, "")

    def text(self, column: str) -> bool:
        return self.kind(column) in ("text", *NUMBERS)

    def turns(self, column: str) -> bool:
        return self.kind(column) in (TURNS, AS_JSON)

    def said(self, column: str) -> bool:
        """Whether a column holds what somebody says: texts, or turns."""
        return self.text(column) or self.kind(column) in (TURNS, "a turn")

    def verdict(self, column: str) -> bool:
        """Whether a column says yes or no."""
        values = {str(row[column]).lower() for row in self.rows if row.get(column) is not None}
        return bool(self.kind(column)) and values <= {"true", "false", "0", "1"}


def kind_of(value: Any) -> str:
    """What a value is, in words."""
    match value:
        case str():
            return AS_JSON if value.lstrip().startswith("[") and kind_of(json_or_none(value)) == TURNS else "text"
        case bool():
            return "true or false"
        case int():
            return "a whole number"
        case float():
            return "a number"
        case dict():
            return "a turn" if is_turn(value) else "an object"
        case []:
            return "an empty list"
        case list():
            return kind_of_list(value)
    return "a value of another kind"


def kind_of_list(value: list[Any]) -> str:
    if all(isinstance(item, dict) and is_turn(item) for item in value):
        return TURNS
    if all(type(item) is int for item in value):
        return "a list of whole numbers"
    return "a list of texts" if all(isinstance(item, str) for item in value) else "a list"


def is_turn(value: dict[str, Any]) -> bool:
    return any(isinstance(value.get(role), str) for role in ("role", "from"))


def json_or_none(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def detect(rows: Sequence[Row], path: str) -> tuple[Format, str]:
    """The format that rows are in, and why; of several, the one that uses the most columns."""
    sample = Sample(rows[:LOOKED_AT])
    found = [way for entry in format_.all().values() if entry.detected for way in entry.told(sample)]
    most = max((len(way.columns()) for way in found), default=0)
    match [way for way in found if len(way.columns()) == most]:
        case [way]:
            return way, f"read as {way.name}, because it has {reason(way, sample)}"
        case []:
            entries = [entry for entry in format_.all().values() if entry.detected]
            known = "; ".join(f"{entry.name}: {', '.join(entry().columns())}" for entry in entries)
            has = holding(sorted(sample.kinds.items()))
            raise DataError(
                f"{path}: no format has the columns {has}; known are {known}; name the columns with"
                " data.format.name=... and data.format.COLUMN=..., or build prompts with data.format.name=template"
            )
        case several:
            ways = "; or ".join(f"{way.name} ({', '.join(way.columns())}): {chosen(way)}" for way in several)
            raise DataError(f"{path}: can be read in several ways; choose: {ways}")


def reason(way: Format, sample: Sample) -> str:
    columns = [*dict.fromkeys(column for column in way.read_columns() if sample.kind(column))]
    return holding([(column, sample.kind(column)) for column in columns])


def holding(columns: Sequence[tuple[str, str]]) -> str:
    """Columns and what they hold, such as `chosen and rejected, each a list of turns`."""
    parts = []
    for kind, group in groupby(columns, lambda pair: pair[1]):
        names = [name for name, _ in group]
        parts.append(f"{named(names)} ({'each ' if len(names) > 1 else ''}{kind})")
    return named(parts) or "(none)"


def named(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def options(way: Format) -> dict[str, Any]:
    """The options of a format that are not as usual."""
    usual: Any = type(way)()
    found = {field.name: getattr(way, field.name) for field in fields(usual)}
    return {name: value for name, value in found.items() if value != getattr(usual, name)}


def chosen(way: Format) -> str:
    """The words that choose a format with its options."""
    said = {"name": way.name, **options(way)}
    return " ".join(f"data.format.{name}={'null' if value is None else value}" for name, value in said.items())
