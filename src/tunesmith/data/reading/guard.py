"""Cells of tables that a spreadsheet would run, or that would steer a terminal: written harmless, and read back as they
were.

Such a cell gets an apostrophe before it, which makes it text to a spreadsheet, and its control characters are escaped.
A column of our own says which cells these are, for an apostrophe may also be somebody's own.
"""

from __future__ import annotations

import json
import re
from typing import Any

GUARDED = "tunesmith.guarded"
"""The column that says, as a JSON list, which cells of its row are guarded."""
RUN = re.compile(r"[=+\-@\t\n\uff1d\uff0b\uff0d\uff20]")
"""What a formula may begin with, in wide letters too."""
STEERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Control characters but for tab and line feed, line ends that not everybody takes for such, and halves of letters."""
ESCAPED = re.compile(r"\\(?:\\|u([0-9a-f]{4}))")


def guarded(row: dict[str, str]) -> dict[str, str]:
    """A row of texts whose cells do no harm; with the column GUARDED if one had to be changed."""
    risky = [column for column, cell in row.items() if RUN.match(cell) or STEERS.search(cell)]
    if not risky:
        return row
    return row | {column: f"'{escaped(row[column])}" for column in risky} | {GUARDED: json.dumps(risky)}


def escaped(cell: str) -> str:
    return STEERS.sub(lambda found: f"\\u{ord(found[0]):04x}", cell.replace("\\", "\\\\"))


def unguarded(row: dict[str, Any]) -> dict[str, Any]:
    """A row as it was before its cells were guarded; any other row as it is."""
    if GUARDED not in row:
        return row
    said = row[GUARDED]
    plain = {column: cell for column, cell in row.items() if column != GUARDED}
    try:
        risky = json.loads(said) if said else []
    except ValueError:
        risky = None
    if not isinstance(risky, list) or not all(str(plain.get(column)).startswith("'") for column in risky):
        raise ValueError(
            f"column '{GUARDED}' must name the cells that have an apostrophe before them (got {said!r:.60})"
        )
    return plain | {column: unescaped(plain[column][1:]) for column in risky}


def unescaped(cell: str) -> str:
    return ESCAPED.sub(lambda found: chr(int(found[1], 16)) if found[1] else "\\", cell)
