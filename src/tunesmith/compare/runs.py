"""Runs that there are, held against each other: their figures, curves and recipes, and what is no more than chance."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from .. import passport
from ..config.load import dump
from ..errors import RecipeError
from ..evaluate.chart import Point
from ..evaluate.metrics import gain
from ..evaluate.report import word
from ..runs import RunFolder
from .chance import LEVEL, by_chance, corrected

Figures = dict[str, float]
FIRST = ("loss", "eval_loss", "reward", "accuracy")
"""Curves that are looked at first."""
NO_CURVES = {"step", "epoch", "tokens"}
WORDS: dict[str, tuple[Callable[[float], str], str]] = {
    "worth": (lambda value: f"{value:+.3f}", "of reward"),
    "right": (lambda value: f"{100 * value:+.1f}", "points of accuracy"),
    "losses": (lambda value: f"{-value:+.4f}", "of loss"),
}
"""How a difference is said of what is known of each row."""
RESULT = ("train_seconds", "tokens_per_second", "peak_memory_mb")


@dataclass(frozen=True)
class Held:
    """A run as others are held against it."""

    label: str
    folder: RunFolder
    facts: dict[str, Any]
    lines: list[Figures]
    settings: dict[str, tuple[str, str]]
    """By key its value in words, and where that came from."""
    rows: str | None
    """The hash of the held-out rows that it was measured on; None where no passport says so."""

    @property
    def kind(self) -> str:
        """What is known of each held-out row: what its answer was worth, whether it was right, its loss, or nothing."""
        return next((name for name in ("worth", "right", "losses") if "after" in self.facts.get(name, {})), "")

    @property
    def each(self) -> list[float | None]:
        """The same as numbers, of which more is better."""
        sign = -1 if self.kind == "losses" else 1
        return [None if one is None else sign * float(one) for one in self.facts[self.kind]["after"]]

    @property
    def judged(self) -> tuple[Any, ...]:
        """What must be the same for rows' results to be the same thing."""
        tokens = self.facts[self.kind].get("tokens")
        return self.kind, self.facts.get("judged", ""), tokens, dump(self.folder.recipe().value.rewards)

    @property
    def figures(self) -> Figures:
        """What it came to."""
        result = self.facts.get("result") or {}
        found = {name: result[name] for name in RESULT if name in result}
        for side in ("before", "after"):
            known = (result.get(side) or self.facts.get(side)) or {}
            named = {name: known.get(name) for name in ("accuracy", "macro_f1", "error", "loss", "perplexity")}
            named["reward"] = known.get("watched", {}).get("reward")
            found |= {f"{name} {side}": value for name, value in named.items() if value is not None}
        last = {name: value for line in self.lines for name, value in line.items() if name in ("loss", "eval_loss")}
        return found | {f"last {name}": value for name, value in last.items()}


@dataclass(frozen=True)
class Verdict:
    """One run's results against another's, row by row."""

    one: str
    other: str
    measure: str = ""
    rows: int = 0
    difference: float = 0.0
    """By how much the other is better, as a mean over rows."""
    interval: tuple[float, float] | None = None
    """Its 95% bootstrap interval; rows are drawn, with both results of each."""
    p: float | None = None
    """How often chance alone makes such a difference (exact sign or random-flip test), after Holm's correction for as
    many pairs as there are."""
    unknown: str = ""
    """Why nothing can be said."""

    def __str__(self) -> str:
        if self.unknown:
            return f"{self.other} against {self.one}: not known whether it is chance: {self.unknown}"
        say, unit = WORDS[self.measure]
        ends = sorted((self.interval or (math.nan, math.nan)), key=lambda end: float(say(end)))
        low, high = map(say, ends)
        sure = self.p is not None and self.p < LEVEL
        said = ("better" if self.difference > 0 else "worse") if sure else "no significant difference"
        return (
            f"{self.other} against {self.one}: {say(self.difference)} {unit} on {self.rows:,} rows, 95% interval"
            f" {low} to {high}, p {self.p:.3g}: {said}"
        )


def read(folders: Sequence[Path], fewest: int = 2) -> list[Held]:
    """The runs in folders, each under a name that tells it from the others."""
    if len({folder.resolve() for folder in folders}) < max(len(folders), fewest):
        raise RecipeError(f"runs: {fewest} or more different folders are needed; `tunesmith runs list` names them")
    names = [folder.resolve().name for folder in folders]
    clear = len(set(names)) == len(names)
    return [held(folder, name if clear else str(folder)) for folder, name in zip(folders, names, strict=True)]


def held(folder: Path, label: str) -> Held:
    opened = RunFolder(folder)
    facts, recipe = opened.facts | {"status": opened.status}, opened.recipe()
    known = passport.read(folder) if (folder / passport.NAME).exists() else {}
    came = passport.origins(known)
    settings = {name: (word(value), origin) for name, value, origin in passport.settings(recipe.value, came)}
    rows = known.get("data", {}).get(passport.MEASURED)
    return Held(label, opened, facts, opened.metrics, settings, rows)


def differing(runs: Sequence[Held]) -> dict[str, list[tuple[str, str]]]:
    """The keys of the recipes that are not the same in all, each with every run's value and where it came from."""
    names = dict.fromkeys(name for run in runs for name in run.settings if name != "output")
    found = {name: [run.settings.get(name, ("", "")) for run in runs] for name in names}
    return {name: said for name, said in found.items() if len({value for value, _ in said}) > 1}


def curves(runs: Sequence[Held]) -> dict[str, dict[str, list[Point]]]:
    """By the name of a figure, each run's course of it; those first that are looked at first."""
    names = dict.fromkeys(name for run in runs for line in run.lines for name in line if name not in NO_CURVES)
    order = sorted(names, key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))
    return {name: {run.label: course(run, name) for run in runs if course(run, name)} for name in order}


def course(run: Held, name: str) -> list[Point]:
    return [(line["step"], line[name]) for line in run.lines if name in line]


# what is more than chance


def verdicts(runs: Sequence[Held]) -> list[Verdict]:
    """Every pair of runs, held against each other on the rows that both were measured on."""
    found = [verdict(one, other) for one, other in combinations(runs, 2)]
    return [replace(one, p=p) for one, p in zip(found, corrected([one.p for one in found]), strict=True)]


def verdict(one: Held, other: Held) -> Verdict:
    """Two runs, row by row: chance that is a row's own, and the same for both, takes no part."""
    pair = one.label, other.label
    for run in (one, other):
        if not run.kind:
            return Verdict(*pair, unknown=f"{run.label} has no result of each row, only means over them")
        if not all(value is None or math.isfinite(value) for value in run.each):
            return Verdict(*pair, unknown=f"{run.label} has results that are no numbers")
    if one.rows is None or one.rows != other.rows or len(one.each) != len(other.each):
        return Verdict(*pair, unknown="they were not measured on the same held-out rows")
    if one.judged != other.judged:
        return Verdict(*pair, unknown="their answers were judged in different ways")
    both = [(a, b) for a, b in zip(one.each, other.each, strict=True) if a is not None and b is not None]
    if not both:
        return Verdict(*pair, unknown="there is no row that both have a result of")
    mean = gain([a for a, _ in both], [b for _, b in both])
    apart = np.array([b - a for a, b in both])
    spread = mean["gain_low"], mean["gain_high"]
    return Verdict(*pair, one.kind, len(both), mean["gain"], spread, by_chance(apart))


# metrics as a table


def by_step(lines: Sequence[Mapping[str, float]]) -> Iterator[Figures]:
    """A run's metrics, one dict a step."""
    steps: dict[float, Figures] = {}
    for line in lines:
        steps.setdefault(line["step"], {}).update(line)
    yield from (steps[step] for step in sorted(steps))


def as_csv(runs: Sequence[Held]) -> str:
    """The metrics of runs by step: a line for each step of each run, a column for each figure."""
    names = dict.fromkeys(["step", *(name for run in runs for line in run.lines for name in line)])
    out = io.StringIO()
    table = csv.DictWriter(out, ["run", *names], restval="", lineterminator="\n")
    table.writeheader()
    for run in runs:
        table.writerows({"run": run.label, **figures} for figures in by_step(run.lines))
    return out.getvalue()
