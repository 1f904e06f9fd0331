"""Rows on their way to sequences, one after another, each with what became of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DataError
from .dataset import check, share
from .example import Example
from .formats.auto import Auto
from .formats.base import Format, detect
from .lint.base import Item
from .render import NoTarget, Renderer
from .source import Row, read, splits

if TYPE_CHECKING:
    from ..run import Data, Run


def items(run: Run, where: Path, held_out: Path | None, renderer: Renderer | None) -> Iterator[Item]:
    """Every row of a run's data, in the order of its files; one that cannot be used bears its fault."""
    files = {split: found for split, found in splits(where).items()}
    if held_out:
        files["test"] = [file for found in splits(held_out).values() for file in found]
    alone = "test" not in files and "validation" not in files
    format_ = None
    for split, found in files.items():
        for row, fault in rows(found):
            if fault:
                yield Item(row, split, fault=fault)
                continue
            format_ = format_ or format_of(run.data, row, where)
            use = "test" if alone and share(row) < run.data.eval_size else split
            yield item(run, row, use, format_, renderer)


def format_of(data: Data, row: Row, where: Path) -> Format:
    return detect(row.values, str(where)) if isinstance(data.format, Auto) else data.format


def rows(files: list[Path]) -> Iterator[tuple[Row, str | None]]:
    """Every row; where a file breaks off, one with the reason, and the rest of that file is not read."""
    for file in files:
        try:
            for row in read([file]):
                yield row, None
        except DataError as error:
            place = re.match(rf"{re.escape(str(file))}:\d+", str(error))
            yield Row(place[0] if place else str(file), {}), f"{error}; the rest of the file was not read"


def item(run: Run, row: Row, split: str, format_: Format, renderer: Renderer | None) -> Item:
    """One row, as far as it gets."""
    try:
        check(format_, row.values)
        example = replace(format_.read(row.values), origin=row.origin)
    except ValueError as error:
        return Item(row, split, fault=f"cannot be read as {format_.name}: {error}")
    return rendered(Item(row, split, example), example, run, renderer)


def rendered(made: Item, example: Example, run: Run, renderer: Renderer | None) -> Item:
    if renderer is None:
        return made
    try:
        return replace(made, tokens=renderer.render(example, run.objective.targets))
    except (NoTarget, DataError) as error:
        return replace(made, fault=str(error))
