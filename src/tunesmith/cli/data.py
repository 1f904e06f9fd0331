"""data preview."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from .show import json_out, line, piece
from .train import WORDS, Json


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Look at what is learnt.", no_args_is_help=True)
    group.command("preview", context_settings=WORDS)(preview)
    app.add_typer(group, name="data")


def preview(
    context: typer.Context,
    recipe: Annotated[Path, typer.Argument(help="A recipe; key=value may follow.")],
    samples: Annotated[int, typer.Option("--samples", "-n", help="How many sequences.", min=1)] = 3,
    as_json: Json = False,
) -> None:
    """The text of some samples as the model sees it, with the trained tokens marked."""
    from ..config.load import load
    from ..data.material import prepare
    from ..migrate import RENAMED
    from ..model.hub import locate, locate_data
    from ..model.load import load_tokenizer
    from ..run import Run
    from ..training.progress import Progress

    run = load(Run, recipe, context.args, renamed=RENAMED).value
    tokenizer = load_tokenizer(locate(run.model.path))
    held_out = locate_data(run.data.eval_path) if run.data.eval_path else None
    material = prepare(run, locate_data(run.data.path), held_out, tokenizer, Progress().say)
    shown = [
        [
            {"id": token, "text": tokenizer.decode([token]), "learn": learn}
            for token, learn in zip(tokens.ids, tokens.learn, strict=True)
        ]
        for tokens in material.sequences[:samples]
    ]
    if as_json:
        json_out(shown)
        return
    for number, (tokens, sequence) in enumerate(zip(shown, material.sequences, strict=False), 1):
        label = f", label {material.labels[sequence.label]}" if sequence.label is not None else ""
        learnt = sum(token["learn"] for token in tokens)
        line(f"--- sample {number}: {len(tokens)} tokens, {learnt} of them trained{label}")
        mark(tokens)


def mark(tokens: list[dict]) -> None:
    """Print tokens; the trained ones in green on a terminal, in ⟦brackets⟧ elsewhere."""
    from itertools import groupby

    on, off = ("\x1b[32;1m", "\x1b[0m") if sys.stdout.isatty() else ("⟦", "⟧")
    for learn, run in groupby(tokens, lambda token: token["learn"]):
        text = "".join(token["text"] for token in run)
        sys.stdout.write(on if learn else "")
        piece(text)
        sys.stdout.write(off if learn else "")
    line()
