"""What readers give, and what they say of what they cannot read."""

from collections.abc import Callable
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


Bad = Callable[[str], None]
"""Gets a sentence about a row that cannot be read; raises it, or returns to go on without the row."""


def refuse(sentence: str) -> None:
    """The `Bad` that goes on without nothing."""
    raise DataError(sentence)


def too_long(file: Path, line: int) -> str:
    return f"{file}:{line}: is longer than {LONGEST >> 20} MiB, the most that one row may have; cut it into several"
