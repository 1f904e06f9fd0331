"""feedback stats, feedback export, feedback train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from .show import json_out, line, table
from .train import WORDS, Json, carry_out, named

Kind = Literal["kto", "preference", "sft"]
File = Annotated[Path, typer.Argument(help="The SQLite file that a server keeps feedback in (feedback=FILE).")]
As = Annotated[Kind, typer.Option("--as", help="kto: answers liked or not; preference: two compared; sft: good ones.")]
Model = Annotated[str | None, typer.Option(help="Only answers under this name.")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="What people said of a server's answers: counted, exported, learnt.", no_args_is_help=True)
    group.command("stats")(stats)
    group.command("export")(export)
    group.command("train", context_settings=WORDS)(train)
    app.add_typer(group, name="feedback")


def heard(file: Path) -> Any:
    from contextlib import closing

    from ..serving.harvest import hear
    from ..serving.store import Store

    with closing(Store(file, create=False)) as store:
        return hear(store)


def stats(file: File, as_json: Json = False) -> None:
    """Count what was said, and say what speaks against it: duplicates, conflicts, one rater's flood."""
    figures = heard(file).figures()
    if as_json:
        json_out(figures)
        return
    shown = {name: value for name, value in figures.items() if not isinstance(value, dict | list)}
    table(str(file), ["", ""], [[name, f"{value:,}"] for name, value in shown.items()])
    for name in ("models", "tags"):
        line(f"{name}: " + (", ".join(f"{key} {count}" for key, count in figures[name].items()) or "none"))
    warn(figures)


def warn(figures: dict[str, Any]) -> None:
    """What speaks against learning from it."""
    for rater in figures["floods"]:
        line(f"most verdicts are of one rater ({rater or 'without a name'}): one person's taste would be learnt")
    if figures["conflicts"]:
        line(f"{figures['conflicts']} answers are liked by some and not by others; they are left out")
    if figures["circles"]:
        line(f"{figures['circles']} comparisons are turned round by another; they are left out")


def export(
    file: File,
    to: Annotated[Path, typer.Option("--to", help="The .jsonl file to write.")],
    kind: As = "kto",
    model: Model = None,
) -> None:
    """Write rows that `tunesmith train` reads, and beside them where they come from."""
    from ..serving.harvest import RECIPES
    from ..serving.harvest import export as exported

    said = heard(file)
    count = exported(said, kind, to, model)
    line(f"{to}: {count} rows; objective={RECIPES[kind][0]} data.format.name={RECIPES[kind][1]}")
    warn(said.figures())


def train(
    context: typer.Context,
    file: File,
    base: Annotated[str, typer.Option("--base", help="The model to tune, as model.path names it.")],
    to: Annotated[Path, typer.Option("--to", help="A folder for the rows and the recipe.")],
    kind: As = "kto",
    model: Model = None,
) -> None:
    """Export rows, write the recipe beside them, and train by it. Takes key=value as train does."""
    from ..files import write
    from ..serving.harvest import export as exported
    from ..serving.harvest import recipe

    said = heard(file)
    rows, written = to / f"{kind}.jsonl", to / f"{kind}.yaml"
    count = exported(said, kind, rows, model)
    write(written, recipe(kind, rows, base))
    line(f"{rows}: {count} rows; {written}: the recipe")
    warn(said.figures())
    carry_out(written, list(context.args), False, named(str(written)))
