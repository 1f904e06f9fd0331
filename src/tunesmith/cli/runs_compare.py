"""runs compare, runs export csv."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from .show import json_out, line, piece, table
from .train import Json

Folders = Annotated[list[Path], typer.Argument(help="Folders of runs.")]


def register(group: typer.Typer) -> None:
    group.command("compare")(compare_runs)
    export = typer.Typer(help="What runs have logged, for other programs.", no_args_is_help=True)
    export.callback()(lambda: None)  # with one command alone, typer would leave out its name
    export.command("csv")(export_csv)
    group.add_typer(export, name="export")


def compare_runs(
    runs: Folders,
    to: Annotated[Path, typer.Option(help="The page with the curves.")] = Path("runs.html"),
    as_json: Json = False,
) -> None:
    """Hold runs against each other: figures, curves over each other, where the recipes differ and who set it, and
    what of the differences is more than chance."""
    from ..compare.runs import differing, read, verdicts
    from ..compare.runs_page import page, recipes, told
    from ..files import write

    held = read(runs)
    said = verdicts(held)
    write(to, page(held, said))
    labels = [run.label for run in held]
    if as_json:
        rows = differing(held).items()
        settings = {name: dict(zip(labels, map(spelt, row), strict=True)) for name, row in rows}
        figures = {run.label: run.figures | {"status": run.facts["status"]} for run in held}
        json_out({"figures": figures, "recipes": settings, "verdicts": [*map(asdict, said)], "page": str(to)})
        return
    table("", ["", *labels], [[name, *cells] for name, cells in told(held)])
    for one in said:
        line(str(one))
    rows = recipes(held)
    if rows:
        table("Recipes", ["", *labels], [[name, *cells] for name, cells in rows])
    else:
        line("the recipes are the same")
    line(str(to))


def spelt(said: tuple[str, str]) -> dict[str, str]:
    """A setting's value and its origin."""
    return {"value": said[0], "origin": said[1]}


def export_csv(
    runs: Folders, to: Annotated[Path | None, typer.Option(help="The file; else it goes to stdout.")] = None
) -> None:
    """The metrics of runs by step as CSV: a line for each step of each run, a column for each figure."""
    from ..compare.runs import as_csv, read
    from ..files import write

    held = read(runs, fewest=1)
    if to is None:
        piece(as_csv(held))
        return
    write(to, as_csv(held))
    line(f"{to}: {sum(len({one['step'] for one in run.lines}) for run in held):,} steps of {len(held)} runs")
