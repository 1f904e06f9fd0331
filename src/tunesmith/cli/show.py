"""What commands print: JSON for machines, tables for people."""

import json
import os
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
    sys.stdout.write(harmless(text))
    sys.stdout.flush()


def harmless(text: str) -> str:
    """A text with replacement characters for what would steer the terminal."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "\ufffd" for letter in text)


def chinese() -> bool:
    """Whether the user's language is Chinese."""
    said = (os.environ.get(name) for name in ("LC_ALL", "LC_MESSAGES", "LANG"))
    return next(filter(None, said), "").lower().startswith("zh")


def table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on stdout, as wide as the terminal, or as its content where there is none."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(title=Text(title) if title else None, title_justify="left")
    for name in head:
        drawn.add_column(name, overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(harmless(cell)) for cell in row))
    console = Console() if sys.stdout.isatty() else Console(width=120)
    console.print(drawn)
