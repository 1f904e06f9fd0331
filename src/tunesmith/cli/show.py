"""What commands print: JSON for machines, tables for people."""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any


def json_out(value: Any) -> None:
    """One JSON value on stdout."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def line(text: str = "") -> None:
    """One line on stdout."""
    piece(text + "\n")


def piece(text: str) -> None:
    """Part of a line on stdout, at once. What would steer the terminal is shown as a replacement character."""
    sys.stdout.write("".join(letter if letter.isprintable() or letter in "\n\t" else "\ufffd" for letter in text))
    sys.stdout.flush()


def table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on stdout, as wide as the terminal, or as its content where there is none."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(title=Text(title) if title else None, title_justify="left")
    for name in head:
        drawn.add_column(name, overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(cell) for cell in row))
    console = Console() if sys.stdout.isatty() else Console(width=120)
    console.print(drawn)
