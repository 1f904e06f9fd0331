"""compare."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ..errors import RecipeError, Refusal
from .show import json_out, line, table
from .train import WORDS, Json


def register(app: typer.Typer) -> None:
    app.command(context_settings=WORDS)(compare)


def compare(  # noqa: PLR0913 - each is an option
    context: typer.Context,
    recipe: Annotated[Path, typer.Argument(help="What all of them train; key=value may follow.")],
    methods: Annotated[
        str,
        typer.Option(help="Methods with commas between them, perhaps with keys: 'full, lora r=16, lora data.path=x'."),
    ],
    seeds: Annotated[int, typer.Option(help="Runs of each, with the seeds 1, 2 ...", min=1)] = 1,
    budget: Annotated[
        str, typer.Option(help="What each method may use: 400steps, 1e6tokens, 10m; else as the recipe says.")
    ] = "",
    sweep: Annotated[
        int, typer.Option(help="Learning rates tried for each first, in short runs out of its budget.", min=0)
    ] = 0,
    parallel: Annotated[
        int, typer.Option(help="Runs at once, each with its share of the cores, or a GPU of its own.", min=1)
    ] = 1,
    retention: Annotated[bool, typer.Option(help="Measure what is left of general skills too.")] = True,
    out: Annotated[Path, typer.Option(help="Where the runs and the report go; what has run is not run again.")] = Path(
        "comparison"
    ),
    as_json: Json = False,
) -> None:
    """Train a recipe with each of several methods, and hold them against each other: how good, how sure, what was
    forgotten, and what it took."""
    from ..compare.budget import Budget
    from ..compare.contest import Contest, Entrant, apart
    from ..compare.lanes import Lanes
    from ..compare.page import HEAD, cells, notes, page, picture
    from ..compare.sweep import compared
    from ..files import write
    from ..training.progress import Progress

    entrants = tuple(Entrant(" ".join(name.split())) for name in apart(methods, ","))
    if not entrants:
        raise RecipeError("--methods: names none; such as full,lora,freeze")
    words = tuple(context.args)
    limit = Budget.read(budget) if budget else None
    contest = Contest(recipe, words, entrants, tuple(range(1, seeds + 1)), out, limit, sweep, retention)
    with Lanes(parallel) as lanes:
        rows = compared(contest, Progress(quiet=as_json).say, lanes.begin, parallel)
    about = [f"{recipe}, {seeds} seed{'s' * (seeds > 1)}", *([f"words: {' '.join(words)}"] if words else [])]
    about += [f"budget of each method: {limit}"] if limit else []
    about += list(filter(None, [contest.unasked]))
    about += [f"{parallel} runs at once: times are of a run with its share of the machine"] if parallel > 1 else []
    out.mkdir(parents=True, exist_ok=True)
    found = [one.as_json() for one in rows]
    write(out / "comparison.json", json.dumps(found, indent=1, ensure_ascii=False))
    write(out / "comparison.html", page(rows, f"Methods compared on {recipe.stem}", about))
    (out / "comparison.png").write_bytes(picture(rows))
    if as_json:
        json_out(found)
    else:
        table("", HEAD, [cells(one) for one in rows])
        for note in filter(None, [*notes(rows), contest.unasked]):
            line(note)
        line(f"{out / 'comparison.html'}")
    if not any(one.after is not None for one in rows):
        raise Refusal(f"compare: none of {len(rows)} methods ran to its end; the first: {rows[0].failed}")
