"""What commands about data are given: a recipe, or just data."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from ..errors import RecipeError

if TYPE_CHECKING:
    from ..data.item import Item
    from ..data.reading.places import Place
    from ..data.rendering.render import Renderer
    from ..run import Run

T = TypeVar("T")
BEGUN_WITH = "demo/smollm2-135m-instruct"
"""The model of those who have not named one."""
What = Annotated[str, typer.Argument(help="A recipe, or a data file or folder; key=value may follow.")]
Base = Annotated[str | None, typer.Option("--model", help="Whose tokenizer and template; a recipe names its own.")]


@dataclass(frozen=True)
class Rows:
    """The rows of some data, and what reads and renders them."""

    run: Run
    places: list[Place]
    renderer: Renderer | None
    """None where no model was named."""

    def __iter__(self) -> Iterator[Item]:
        from ..data.items import items

        return items(self.run, self.places, self.renderer)

    def folded(self, fold: Callable[[list[Item]], T]) -> Iterator[T]:
        """What `fold` makes of some hundred of them at a time; quicker where that is less than they are."""
        from ..data.items import folded
        from ..data.keeping.ahead import seldom_tidied

        with seldom_tidied():
            yield from folded(self.run, self.places, self.renderer, fold)


def rows_of(what: str, model: str | None, words: Sequence[str], longest: int | None = None) -> Rows:
    """Open a recipe's data, or a file; sequences are cut at data.max_length, or at `longest` where it is given."""
    from ..config.load import load
    from ..data.reading.places import places
    from ..data.rendering.render import Renderer
    from ..migrate import RENAMED
    from ..model.hub import locate, locate_data
    from ..model.load import load_tokenizer
    from ..run import Run

    if Path(what).suffix in (".yaml", ".yml"):
        if model:
            raise RecipeError(f"--model: {what} names its own; say model.path={model} to take another")
        run, named = load(Run, Path(what), words, renamed=RENAMED).value, True
    else:
        base = {"model": {"path": model or "none"}, "data": {"path": what}, "objective": goal(what)}
        run = load(Run, text=json.dumps(base), words=words, renamed=RENAMED).value
        named = run.model.path != "none"
    data = replace(run.data, max_length=longest) if longest else run.data
    renderer = Renderer(load_tokenizer(locate(run.model.path)), data) if named else None
    return Rows(run, places(run.data, locate_data), renderer)


def goal(what: str) -> str:
    """What data are for, as their first rows show; answers, where these show nothing."""
    from ..data.reading.places import places
    from ..errors import DataError
    from ..model.hub import locate_data
    from ..run import Data

    try:
        [place, *_] = places(Data(path=what), locate_data)
    except DataError:  # columns that data.format is to name, or a fault that will be said when all rows are read
        return "sft"
    return {"labelled": "classify", "text": "pretrain"}.get(place.format.name, "sft")
