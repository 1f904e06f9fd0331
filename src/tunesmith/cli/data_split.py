"""data split."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .show import line


def split(
    source: Annotated[str, typer.Argument(help="Data: a file, a folder, a pattern, a name.")],
    out: Annotated[Path, typer.Argument(help="Folder for train.jsonl, validation.jsonl and test.jsonl.")],
    validation: Annotated[float, typer.Option(min=0, max=1, help="Share of the rows for validation.")] = 0.0,
    test: Annotated[float, typer.Option(min=0, max=1, help="Share of the rows to measure on.")] = 0.1,
    of: Annotated[
        str | None, typer.Option("--split", help="Part this split alone; all that there are unless given.")
    ] = None,
) -> None:
    """Part rows by a hash of their content: each stays on its side when others are added, and copies stay together."""
    from ..data.writing.split import part
    from ..model.hub import locate_data

    for name, count in part(locate_data(source), out, {"test": test, "validation": validation}, of).items():
        line(f"{out / name}.jsonl: {count:,} rows")
