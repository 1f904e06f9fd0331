"""Train a finished run again, and hold one beside the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .. import passport
from ..data.reading.places import places, sums
from ..errors import CheckpointError, DataError, RecipeError
from ..files import sha256
from ..model.another import beside
from ..model.hub import locate, locate_data
from ..model.teacher import models
from ..objectives._online import Online
from ..rollout.score import code as reward_code
from ..run import Run
from ..runs import RunFolder
from .progress import Progress
from .train import train

SURROUNDINGS = ("code", "versions", "machine")
"""Sections of a passport; where they differ, the last bits may."""
FIGURES = ("loss", "eval_loss", "grad_norm")
"""Of a line of metrics, what a run that is the same comes to again."""
SCORES = ("accuracy", "macro_f1", "loss")


@dataclass(frozen=True)
class Reproduced:
    """A run and its second training."""

    first: RunFolder
    second: RunFolder
    differences: passport.Differences
    """What was not the same around them, by section of the passport: code, versions, machine."""

    @property
    def results(self) -> dict[str, tuple[Any, Any]]:
        """By file of weights the hash that it has in either; likewise of the weights as they were in memory."""
        one, other = (passport.read(run.path)["result"] for run in (self.first, self.second))
        return {name: (one.get(name), other.get(name)) for name in {**one, **other}}

    @property
    def figures(self) -> list[tuple[int, str, float | None, float | None]]:
        """Step, name, and what either logged there."""
        one, other = (dict(logged(run)) for run in (self.first, self.second))
        return [(*at, one.get(at), other.get(at)) for at in {**one, **other}]

    @property
    def scores(self) -> list[tuple[str, str, float | None, float | None]]:
        """Side, name, and what either measured."""
        one, other = (run.facts["result"] for run in (self.first, self.second))
        return [
            (side, name, (one[side] or {}).get(name), (other[side] or {}).get(name))
            for side in ("before", "after")
            for name in SCORES
            if (one[side] or other[side] or {}).get(name) is not None
        ]

    @property
    def exact(self) -> bool:
        """Whether both came to the same weights, bit for bit."""
        return all(one == other for one, other in self.results.values())

    @property
    def unpromised(self) -> list[str]:
        """Why the weights need not be the same; nothing where they must."""
        machine = passport.read(self.second.path)["machine"]
        why = [f"{name}: {passport.short(self.differences[name])}" for name in SURROUNDINGS if name in self.differences]
        if self.first.recipe().value.train.max_seconds:
            why.append("train.max_seconds: a clock may have ended either")
        if machine["device"] != "cpu" and not machine["deterministic"]:
            why.append(f"{machine['device']} adds up in no fixed order")
        objective = self.second.recipe().value.objective
        if isinstance(objective, Online) and not objective.sampler.repeats:
            why.append(f"{objective.sampler.name} rounds by what it writes at the same time")
        return why


def reproduce(folder: Path, output: Path | None = None, *, quiet: bool = False) -> Reproduced:
    """Train the recipe of a finished run again, in a folder of its own: `output`, or runs/NAME-again.

    Refused before that where the run's recipe, data, base model or weights are not those that its passport names.
    """
    first, progress = RunFolder(folder), Progress(quiet)
    if first.facts.get("status") != "finished":
        raise CheckpointError(f"{folder}: is not finished; go on with `tunesmith train --resume {folder}`")
    known, run = passport.read(folder), first.recipe().value
    check(folder, known, run, progress.say)
    origins = passport.origins(known) | {"output": "reproduce"}
    again = replace(run, output=str(output) if output else None)
    result = train(again, origins=origins, name=f"{folder.resolve().name}-again", quiet=quiet)
    second = RunFolder(Path(result.run))
    made = passport.read(second.path)
    found = passport.differences(known, made)
    for one in (made, known):
        found = passport.merged(one.get("changed", {}), found)
    return Reproduced(first, second, found)


def check(folder: Path, known: passport.Passport, run: Run, say: Callable[[str], None]) -> None:
    """Refuse what cannot come to the same, before anything is trained."""
    if passport.recipe(run) != known["hashes"]["recipe"]:
        recipe = folder / "recipe.yaml"
        raise RecipeError(f"{recipe}: is not what the run began with: {', '.join(settled(run, known))}")
    for name, expected in known["result"].items():
        file = folder / name
        if name != passport.TRAINED and (not file.is_file() or sha256(file) != expected):
            raise CheckpointError(f"{file}: is not what the run wrote; its hash in {passport.NAME} is another")
    data = sums(places(run.data, locate_data)) | reward_code(run.rewards)
    base = locate(run.model.path)
    now = passport.inputs(base, data, say, beside(run, base) | models(run))
    if changed := passport.unlike(known["base"], now["base"]):
        raise CheckpointError(f"{run.model.path}: has changed since {folder} was trained on it: {', '.join(changed)}")
    rows = {passport.SEQUENCES, passport.MEASURED}
    files = {name: total for name, total in known["data"].items() if name not in rows}
    if changed := passport.unlike(files, now["data"]):
        raise DataError(f"{run.data.path}: has changed since {folder} was trained on it: {', '.join(changed)}")


def settled(run: Run, known: passport.Passport) -> Iterator[str]:
    """The settings that are not those of a passport, in words."""
    was = {name: said["value"] for name, said in known["options"].items() if name != "output"}
    values = {name: value for name, value, _ in passport.settings(run, {}) if name != "output"}
    for name, (one, other) in passport.unlike(was, values).items():
        yield f"{name} was {one}, is {other}"


def logged(run: RunFolder) -> Iterator[tuple[tuple[int, str], float]]:
    """What a run's metrics say, by step and name."""
    for line in run.metrics:
        yield from (((int(line["step"]), name), line[name]) for name in FIGURES if name in line)
