"""What readers give, and what they say of what they cannot read."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import DataError

LONGEST = 64 << 20
"""Bytes of one row; a longer one is refused, so that reading needs little memory whatever the file holds."""
BLOCK = 1 << 20
"""Bytes that are read at once."""


class Row(NamedTuple):
    """What one row holds, and where it was read, as file:line; of Parquet and Arrow, file:row."""

    origin: str
    values: dict[str, Any]


@lru_cache(maxsize=4096)
def place_of(origin: str) -> tuple[str, int]:
    """The file and the line of an origin; -1 where it names no line. Of one row it is asked several times."""
    file, _, line = origin.rpartition(":")
    return (file, int(line)) if line.isdecimal() else (origin, -1)


Bad = Callable[[str], None]
"""Gets a sentence about a row that cannot be read; raises it, or returns to go on without the row."""


def refuse(sentence: str) -> None:
    """The `Bad` that goes on without nothing."""
    raise DataError(sentence)


def too_long(file: Path, line: int) -> str:
    return f"{file}:{line}: is longer than {LONGEST >> 20} MiB, the most that one row may have; cut it into several"
