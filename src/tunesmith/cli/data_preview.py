"""data preview."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import DataError
from .data_rows import BEGUN_WITH, Base, Rows, What, rows_of
from .show import json_out, line, piece
from .train import Json

if TYPE_CHECKING:
    from ..data.view import Piece, Sample


def preview(
    context: typer.Context,
    what: What,
    model: Base = None,
    samples: Annotated[int, typer.Option("--samples", "-n", help="How many sequences.", min=1)] = 3,
    html: Annotated[Path | None, typer.Option("--html", help="Write a page that shows every token instead.")] = None,
    as_json: Json = False,
) -> None:
    """The first samples as the model sees them: what is trained, only read, cut off; what is a special token."""
    from ..data.view import page
    from ..files import write
    from ..training.progress import Progress

    if not model and Path(what).suffix not in (".yaml", ".yml"):
        model = BEGUN_WITH
        Progress().say(f"as {model} reads them; --model names another")
    rows = rows_of(what, model, context.args)
    found = list(islice(seen(rows), samples))
    if not found:
        raise DataError(f"{what}: no row has anything to learn; `tunesmith data lint {what}` says why")
    if html:
        write(html, page(found, what))
        line(f"{html}: {len(found)} samples")
    elif as_json:
        json_out([asdict(sample) for sample in found])
    else:
        for number, sample in enumerate(found, 1):
            show(number, sample)


def seen(rows: Rows) -> Iterator[Sample]:
    """Each sequence that is trained on, with what was cut off around it."""
    from dataclasses import replace

    from ..data.rendering.render import NoTarget, Renderer
    from ..data.view import sample
    from ..training.progress import Progress

    assert rows.renderer
    data, targets = replace(rows.run.data, max_length=2**31, truncation="right"), rows.run.objective.targets
    whole = Renderer(rows.renderer.tokenizer, data)
    say, said = Progress().say, False
    for item in rows:
        if item.fault and not said:
            say(f"rows with nothing to learn are passed over; the first: {item.fault}")
            said = True
        if not item.tokens or item.example is None:
            continue
        [uncut] = whole.render_many([item.example], targets)
        for tokens in item.tokens:
            longer = tokens if isinstance(uncut, NoTarget) else uncut[0]
            yield sample(tokens, longer, whole.tokenizer, item.example.label if targets == "label" else None)


STYLES = {"trained": "32;1", "masked": "2", "truncated": "31;9"}
BRACKETS = {"trained": "⟦⟧", "masked": ("", ""), "truncated": "⟪⟫"}
"""Where there are no colours."""


def show(number: int, sample: Sample) -> None:
    """Print a sample. On a terminal trained tokens are green, masked ones dim, special ones blue, cut ones struck."""
    counts = f"{len(sample.pieces)} tokens, {sample.count('trained')} of them trained"
    counts += f", {sample.count('truncated')} cut off" if sample.count("truncated") else ""
    line(f"--- sample {number}, {sample.origin}: {counts}{f', label {sample.label}' if sample.label else ''}")
    colours = sys.stdout.isatty()
    for (state, special), run in groupby(sample.pieces, lambda one: (one.state, one.special and colours)):
        text = "".join(map(weighed, run))
        if colours:
            style = STYLES[state] + (";34" if special and state == "masked" else "")
            sys.stdout.write(f"\x1b[{style}m")
            piece(text)
            sys.stdout.write("\x1b[0m")
        else:
            opened, closed = BRACKETS[state]
            piece(f"{opened}{text}{closed}")
    line()


def weighed(one: Piece) -> str:
    """A token's text; with its weight, if it is trained and that is not 1."""
    return one.text if one.state != "trained" or one.weight == 1 else f"{one.text}({one.weight:g})"
