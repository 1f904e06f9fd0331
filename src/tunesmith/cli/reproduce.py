"""reproduce."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import Refusal
from .show import json_out, line, table
from .train import Json

if TYPE_CHECKING:
    from ..training.reproduce import Reproduced


MOST = 6
"""Rows of one kind in the table; --json has all."""


def register(app: typer.Typer) -> None:
    app.command()(reproduce)


def reproduce(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.")],
    output: Annotated[Path | None, typer.Option(help="Folder of the second run; runs/NAME-again unless given.")] = None,
    as_json: Json = False,
) -> None:
    """Train a run again and compare: exit code 1 if the same inputs, code, versions and machine give other weights.

    Refused where the recipe, data, base model or weights are not those of the run's passport, manifest.json.
    """
    from ..training.reproduce import reproduce as again

    found = again(run, output)
    if as_json:
        json_out(told(found))
    else:
        show(found)
    if not found.exact and not found.unpromised:
        raise Refusal(f"{run}: the same inputs, code, versions and machine gave other weights in {found.second.path}")


def told(found: Reproduced) -> dict[str, Any]:
    """The comparison as one object."""
    return {
        "first": str(found.first.path),
        "second": str(found.second.path),
        "exact": found.exact,
        "promised": not found.unpromised,
        "differences": found.differences,
        "weights": found.results,
        "figures": [dict(zip(("step", "name", "first", "second"), row, strict=True)) for row in found.figures],
        "scores": [dict(zip(("side", "name", "first", "second"), row, strict=True)) for row in found.scores],
    }


def show(found: Reproduced) -> None:
    """The comparison as a table, and its outcome in a sentence."""
    apart = [row for row in found.figures if row[2] != row[3]]
    rows: list[tuple[str, Any, Any]] = [
        (f"{section}: {name}", *sides)
        for section, names in found.differences.items()
        for name, sides in [*names.items()][:MOST]
    ]
    rows += [(name, *sides) for name, sides in found.results.items()]
    rows += [(f"step {step}: {name}", one, other) for step, name, one, other in apart[:MOST] or found.figures[-MOST:]]
    rows += [(f"{name} {side}", one, other) for side, name, one, other in found.scores]
    head = ["", str(found.first.path), str(found.second.path), "same"]
    table("", head, [(name, brief(one), brief(other), "yes" if one == other else "NO") for name, one, other in rows])
    same = len(found.figures) - len(apart)
    line(f"{same} of {len(found.figures)} figures logged while training are the same")
    if found.exact:
        line("the weights are the same, bit for bit")
    elif found.unpromised:
        line(f"the weights are others; the same bits are not promised, for these differ: {'; '.join(found.unpromised)}")


def brief(value: Any) -> str:
    """A hash by its beginning; a figure with all that tells it from another."""
    text = "" if value is None else str(value)
    return text[:12] if len(text) == 64 else text
