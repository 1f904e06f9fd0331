"""doctor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ..errors import RecipeError, Refusal
from .show import json_out, table
from .train import WORDS, Json


def register(app: typer.Typer) -> None:
    app.command(context_settings=WORDS)(doctor)


def doctor(
    context: typer.Context,
    recipe: Annotated[Path, typer.Argument(help="A recipe; key=value may follow.")],
    rows: Annotated[int, typer.Option("--rows", help="How many rows to try with.", min=2)] = 6,
    as_json: Json = False,
) -> None:
    """Try on your own model and rows that every way of computing a step comes to the same: exit code 1 if not."""
    from .. import passport
    from ..config.load import load
    from ..data.keeping.material import prepare
    from ..data.reading.places import places
    from ..migrate import RENAMED
    from ..model.adapter import adapters
    from ..model.hub import locate, locate_data
    from ..model.load import load_tokenizer
    from ..objectives.base import Referred
    from ..run import Run
    from ..training.before import own_oracle
    from ..training.doctor import examine
    from ..training.progress import Progress
    from ..training.quantised import refuse_quantised
    from ..training.train import build, refuse

    run = load(Run, recipe, context.args, renamed=RENAMED).value
    run = replace(run, eval=replace(run.eval, enabled=False))
    if isinstance(run.objective, Referred):  # whichever it is, the ways of computing a step are the same
        run = replace(run, objective=replace(run.objective, reference=None))
    refuse(run)
    if run.objective.targets == "prompts":
        raise RecipeError(
            f"objective: {run.objective.name} learns from answers that are drawn anew; try the model with objective=sft"
        )
    progress, base = Progress(), locate(run.model.path)
    refuse_quantised(run, base)
    material = prepare(run, places(run.data, locate_data), load_tokenizer(base), progress.say)
    material.sequences = material.sequences[: rows * run.objective.rendered]
    loop = build(run, base, material, progress)
    if isinstance(run.objective, Referred):
        known = passport.digest(passport.inputs(base, {}, progress.say, adapters(run))["base"])
        oracle, whole = own_oracle(run, loop, known, progress.say), range(len(material.sequences))
        loop.rows.look_back(run.objective, oracle, whole, run.data.max_length)
    findings = list(examine(loop))
    if as_json:
        json_out([one._asdict() | {"holds": one.holds} for one in findings])
    else:
        said = [
            [
                one.what,
                f"{one.difference:.1e}",
                f"{one.allowed:.0e}" if one.allowed else "0",
                "yes" if one.holds else "NO",
            ]
            for one in findings
        ]
        table(f"{recipe}, {len(material.sequences)} sequences", ["", "difference", "allowed", "holds"], said)
    if not all(one.holds for one in findings):
        raise Refusal("doctor: not every way of computing a step comes to the same; the rows marked NO say which")
