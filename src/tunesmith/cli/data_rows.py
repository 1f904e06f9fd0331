"""What commands about data are given: a recipe, or just data."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import RecipeError

if TYPE_CHECKING:
    from ..data.lint.base import Item
    from ..data.render import Renderer
    from ..run import Run

What = Annotated[str, typer.Argument(help="A recipe, or a data file or folder; key=value may follow.")]
Base = Annotated[str | None, typer.Option("--model", help="Whose tokenizer and template; a recipe names its own.")]


@dataclass(frozen=True)
class Rows:
    """The rows of some data, and what reads and renders them."""

    run: Run
    where: Path
    held_out: Path | None
    renderer: Renderer | None
    """None where no model was named."""

    def __iter__(self) -> Iterator[Item]:
        from ..data.items import items

        return items(self.run, self.where, self.held_out, self.renderer)


def rows_of(what: str, model: str | None, words: Sequence[str], longest: int | None = None) -> Rows:
    """Open a recipe's data, or a file; sequences are cut at data.max_length, or at `longest` where it is given."""
    from ..config.load import load
    from ..data.render import Renderer
    from ..migrate import RENAMED
    from ..model.hub import locate, locate_data
    from ..model.load import load_tokenizer
    from ..run import Run

    if Path(what).suffix in (".yaml", ".yml"):
        if model:
            raise RecipeError(f"--model: {what} names its own; say model.path={model} to take another")
        run, named = load(Run, Path(what), words, renamed=RENAMED).value, True
        where = locate_data(run.data.path)
    else:
        where = locate_data(what)
        base = {"model": {"path": model or "none"}, "data": {"path": what}, "objective": goal(where)}
        run = load(Run, text=json.dumps(base), words=words, renamed=RENAMED).value
        named = run.model.path != "none"
    held_out = locate_data(run.data.eval_path) if run.data.eval_path else None
    renderer = Renderer(load_tokenizer(locate(run.model.path)), longest or run.data.max_length) if named else None
    return Rows(run, where, held_out, renderer)


def goal(where: Path) -> str:
    """What data are for, as their first row shows; answers, where it shows nothing."""
    from ..data.formats.base import detect
    from ..data.source import read, splits
    from ..errors import DataError

    try:
        first = next(read(splits(where)["train"]), None)
        return {"labelled": "classify", "text": "pretrain"}.get(detect(first.values, "").name if first else "", "sft")
    except DataError:  # a broken row, or columns that data.format is to name: the rows themselves will tell
        return "sft"
