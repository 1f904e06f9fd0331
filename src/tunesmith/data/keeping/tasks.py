"""Which tasks the sources of a run are of, and which part of the head each has."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ...errors import DataError, RecipeError
from ..task import KINDS, TOLD, Kind, Task, name_of
from .store import Stored

if TYPE_CHECKING:
    from ...objectives.base import Targets
    from ...run import Run

WANTED: dict[Targets, tuple[Kind, ...]] = {"label": TOLD, "mixed": (*TOLD, "answers")}
"""By what an objective learns, what its tasks may tell."""


def refuse_tasks(run: Run) -> None:
    """Raise RecipeError for tasks that nothing is made of."""
    named = next((source.task for source in (run.data, *run.data.also) if source.task), None)
    if named and run.objective.targets not in WANTED:
        raise RecipeError(
            f"data.task: {named}: objective {run.objective.name} learns one thing of all rows; take objective=classify"
            " for several sets of labels, objective=mixed for labels beside answers, or leave it out"
        )


def tasks_of(run: Run, parts: Sequence[Stored]) -> tuple[Task | None, ...]:
    """Of every source the task; None where the objective knows of none."""
    sources = (run.data, *run.data.also)
    if run.objective.targets not in WANTED:
        return (None,) * len(sources)
    kinds: list[Kind] = [kind_in(source.path, part) for source, part in zip(sources, parts, strict=True)]
    keys = [name_of(source.task, kind) for source, kind in zip(sources, kinds, strict=True)]
    made: dict[str, Task] = {}
    for key, kind in zip(keys, kinds, strict=True):
        one = made.setdefault(key, Task(key, kind))
        if one.kind != kind:
            raise DataError(
                f"data.task: the task '{key}' tells {KINDS[one.kind]} in one source and"
                f" {KINDS[kind]} in another; give each a name of its own"
            )
    first = 0
    for key, one in made.items():
        own = [part for name, part in zip(keys, parts, strict=True) if name == key]
        made[key] = replace(one, labels=labels_in(one.kind, own), first=first, alone=len(made) == 1)
        first += made[key].size
    run.objective.fits([*made.values()])
    return tuple(made[key] for key in keys)


def kind_in(path: str, part: Stored) -> Kind:
    """What all rows of a source tell."""
    kinds: list[Kind] = sorted(part.facts["kinds"])
    if len(kinds) > 1:
        found = " and ".join(KINDS[kind] for kind in kinds)
        raise DataError(f"{path}: some rows tell {found}: a source is of one task; make two files of it")
    return kinds[0]


def labels_in(kind: Kind, parts: Iterable[Stored]) -> tuple[str, ...]:
    """The classes that occur in some sources, sorted."""
    names = {name for part in parts for name in part.facts["labels"]}
    if kind == "several":
        names = {label for name in names for label in json.loads(name)}
    return tuple(sorted(names)) if kind in ("class", "several") else ()


def distinct(tasks: Iterable[Task | None]) -> tuple[Task, ...]:
    """Each task once, in the order of the head."""
    return tuple(dict.fromkeys(task for task in tasks if task is not None))
