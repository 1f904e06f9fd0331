"""grid."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import Refusal
from .show import json_out, line, table
from .train import Json

Some = list[str] | None


def register(app: typer.Typer) -> None:
    app.command()(grid)


def grid(  # noqa: PLR0913 - each is an option
    method: Annotated[Some, typer.Option(help="Only this method; may be given again, as the next three.")] = None,
    objective: Annotated[Some, typer.Option(help="Only this objective.")] = None,
    precision: Annotated[Some, typer.Option(help="Only this precision.")] = None,
    batch: Annotated[Some, typer.Option(help="Only this kind of batch: packed or padded.")] = None,
    fast: Annotated[bool, typer.Option("--fast", help="Every two things that go together, rather than all.")] = False,
    write: Annotated[Path | None, typer.Option(help="Write the page, such as docs/grid.md.")] = None,
    as_json: Json = False,
) -> None:
    """Try every method with every objective, precision and kind of batch on a tiny model: exit code 1 if one fails.

    A cell learns; only what should move moves; loss and gradient are those of plain torch and PEFT; what is saved says
    the same in a new process, and merged too. One that is refused says why.
    """
    from ..grid.cells import cells
    from ..grid.grid import go
    from ..grid.page import counted, page, reasons
    from ..training.progress import Progress

    asked = {"method": method, "objective": objective, "precision": precision, "batch": batch}
    named = {kind: names for kind, names in asked.items() if names}
    outcomes = go(cells(named), 2 if fast else 0, Progress(quiet=as_json).say)
    if write:
        words = [f" --{kind} {name}" for kind, names in named.items() for name in names] + [" --fast"] * fast
        write.write_text(page(outcomes, "".join(words)), encoding="utf-8")
    if as_json:
        json_out({"cells": [{"name": one.name, "status": one.status, "reason": one.reason} for one in outcomes]})
    else:
        rows = [[status, reason, "\n".join(names)] for (status, reason), names in reasons(outcomes).items()]
        table("", ["", "why", "cells"], rows)
        line(counted(outcomes))
    if failed := [one for one in outcomes if one.status == "failed"]:
        raise Refusal(f"grid: {len(failed)} of {len(outcomes)} cells failed: {', '.join(one.name for one in failed)}")
