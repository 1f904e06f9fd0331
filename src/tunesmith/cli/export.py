"""export."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ..errors import RecipeError
from .show import json_out, line
from .train import WORDS, Json


def register(app: typer.Typer) -> None:
    app.command(context_settings=WORDS)(export)


def export(
    context: typer.Context,
    run: Annotated[str, typer.Argument(help="The folder of a finished run.")],
    to: Annotated[str, typer.Option(help="merged, adapter, gguf, ollama, onnx, gptq, awq or hub.")],
    out: Annotated[Path | None, typer.Option(help="A new folder; beside the run unless given.")] = None,
    most: Annotated[
        float | None,
        typer.Option(help="How far from the trained model it may be, in nats of KL a token; as the form says.", min=0),
    ] = None,
    as_json: Json = False,
) -> None:
    """Hand a tuned model on, in the form that others load, and prove that it is the one that was trained.

    Options of a form follow as key=value: dtype=bf16 (merged), quantization=q4_0 (gguf, ollama), bits=4 (gptq),
    into=original.
    """
    from ..config.load import load
    from ..config.registry import did_you_mean
    from ..delivery.base import way
    from ..delivery.deliver import deliver, named
    from ..training.progress import Progress

    if to not in way.all():
        raise RecipeError(f"--to: no form '{to}'; {did_you_mean(to, way.all())}")
    form = load(way[to], text=json.dumps({}), words=context.args).value
    place = named(out, run, form)
    apart = deliver(run, form, place, most, Progress().say)
    if as_json:
        json_out({"out": str(place), **asdict(apart)})
    else:
        line(f"{place}: {to}, proven on {apart.sentence()}")
