"""What raters said of two answers, in columns beside them."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Protocol

from ..example import Example
from .base import Row, given, json_in, shown

ROUNDING = 1e-9
"""By so much may the means of equal scores differ."""


class Columns(Protocol):
    """The names of the columns."""

    name: ClassVar[str]

    @property
    def chosen(self) -> str: ...
    @property
    def rejected(self) -> str: ...
    @property
    def chosen_ratings(self) -> str | None: ...
    @property
    def rejected_ratings(self) -> str | None: ...
    @property
    def margin(self) -> str | None: ...
    @property
    def agreement(self) -> str | None: ...


def rated(row: Row, columns: Columns) -> dict[str, Any]:
    """What of an example raters said."""
    from ..ratings import margin  # it needs numpy, and formats are listed in the help

    pair = columns.chosen_ratings, columns.rejected_ratings
    there = [column for column in pair if column is not None and given(row, column)]
    if len(there) == 1:
        lacking = next(column for column in pair if column not in there)
        raise ValueError(f"has scores in '{there[0]}' and none in '{lacking}'; each of the two answers needs them")
    ratings = tuple(tuple(scores(row[column], column)) for column in there)
    found = Example(ratings=ratings, margin=at(row, columns.margin), agreement=at(row, columns.agreement))
    said = {f"column '{columns.margin}'": found.margin, " and ".join(map(str, pair)): margin(Example(ratings=ratings))}
    for where, gap in said.items():  # each by itself: a margin does not mend scores that say the contrary
        if gap is not None and gap < -ROUNDING:
            better = f"{columns.rejected} is better than {columns.chosen}, by {-gap:.4g}"
            raise ValueError(f"says that {better} ({where}); swap them, or mend what is said of them")
    if found.agreement is not None and not 0.5 <= found.agreement <= 1:
        raise ValueError(
            f"column '{columns.agreement}' must be the share of raters who hold {columns.chosen} to be the better, from"
            f" 0.5 to 1 (got {found.agreement:g}); where most hold {columns.rejected} to be, swap them"
        )
    return {"ratings": found.ratings, "margin": found.margin, "agreement": found.agreement}


def at(row: Row, column: str | None) -> float | None:
    """The number in a column that may be there."""
    return number(row[column], column) if column is not None and given(row, column) else None


def scores(value: Any, column: str) -> list[float]:
    """The scores in a column: one, a list, or either as text."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = json_in(value, f"column '{column}'")
    if value == []:
        raise ValueError(f"column '{column}' must hold numbers (got an empty list)")
    return [number(one, column) for one in value] if isinstance(value, list) else [number(value, column)]


def number(value: Any, column: str) -> float:
    try:
        found = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise ValueError(f"column '{column}' must hold numbers (got {shown(value)})")
    return found


def rated_row(example: Example, columns: Columns) -> Row:
    """The columns of what raters said."""
    said: list[tuple[str | None, Any]] = [(columns.margin, example.margin), (columns.agreement, example.agreement)]
    if example.ratings:
        better, worse = example.ratings
        said += [(columns.chosen_ratings, [*better]), (columns.rejected_ratings, [*worse])]
    there = {column: value for column, value in said if value is not None}
    if None in there:
        raise ValueError(f"{columns.name} has no column for what raters said of this row")
    return {str(column): value for column, value in there.items()}
