"""data preview, and its other commands."""

from __future__ import annotations

import sys
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .data_convert import convert
from .data_lint import lint
from .data_stats import stats
from .show import json_out, line, piece
from .train import WORDS, Json

if TYPE_CHECKING:
    from ..data.render import Tokens


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Look at what is learnt.", no_args_is_help=True)
    group.command("preview", context_settings=WORDS)(preview)
    group.command("convert", context_settings=WORDS)(convert)
    group.command("lint", context_settings=WORDS)(lint)
    group.command("stats", context_settings=WORDS)(stats)
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
    from ..data.places import places
    from ..migrate import RENAMED
    from ..model.hub import locate, locate_data
    from ..model.load import load_tokenizer
    from ..run import Run
    from ..training.progress import Progress

    run = load(Run, recipe, context.args, renamed=RENAMED).value
    tokenizer = load_tokenizer(locate(run.model.path))
    material = prepare(run, places(run.data, locate_data), tokenizer, Progress().say)
    sequences = material.sequences[:samples]
    if as_json:
        json_out([listed(tokens, tokenizer) for tokens in sequences])
        return
    for number, tokens in enumerate(sequences, 1):
        label = f", label {material.labels[tokens.label]}" if tokens.label is not None else ""
        line(f"--- sample {number}: {len(tokens.ids)} tokens, {sum(tokens.learn)} of them trained{label}")
        mark(tokens, tokenizer)


def listed(tokens: Tokens, tokenizer: Any) -> list[dict[str, Any]]:
    """A sequence, token by token."""
    pairs = zip(tokens.ids, tokens.learn, strict=True)
    return [{"id": token, "text": tokenizer.decode([token]), "learn": learn} for token, learn in pairs]


def mark(tokens: Tokens, tokenizer: Any) -> None:
    """Print a sequence; what is trained stands in green on a terminal, in ⟦brackets⟧ elsewhere."""
    on, off = ("\x1b[32;1m", "\x1b[0m") if sys.stdout.isatty() else ("⟦", "⟧")
    for learn, run in groupby(zip(tokens.ids, tokens.learn, strict=True), lambda pair: pair[1]):
        sys.stdout.write(on if learn else "")
        piece(tokenizer.decode([token for token, _ in run]))
        sys.stdout.write(off if learn else "")
    line()
