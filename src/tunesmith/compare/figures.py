"""What a comparison found: a row a method, over its seeds, and what of the differences is more than chance."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from statistics import mean, median, stdev
from typing import Any

import numpy as np

from ..config.load import dump
from ..runs import RunFolder
from .budget import Spent
from .chance import LEVEL, Found, between, chance, corrected, interval
from .contest import Heat
from .runs import Held, held

Interval = tuple[float, float]


@dataclass(frozen=True)
class Row:
    """One method; of figures that seeds change, the median, but for what is judged, its mean."""

    method: str
    seeds: int
    failed: str = ""
    """Why it was not run to its end, with the first seed that failed."""
    note: str = ""
    measure: str = "loss"
    """What is judged: accuracy, where the rows have right answers, else the loss."""
    before: float | None = None
    after: float | None = None
    found: Found = Found()
    """The same by seeds and rows, which says what of it may be chance."""
    spread: float | None = None
    """Standard deviation over the seeds: how stable it is."""
    retained: float | None = None
    """Share of general skills that is left."""
    retained_interval: Interval | None = None
    text: float | None = None
    """Perplexity of general text before over that after."""
    steps: int | None = None
    tokens: int | None = None
    """How long a run went on: optimizer steps, and real tokens."""
    searched: Spent = Spent()
    """What short runs took before, to find its learning rate or its pace."""
    trainable: int | None = None
    share: float | None = None
    """Of all parameters those that were trained."""
    peak_memory_mb: float | None = None
    seconds: float | None = None
    tokens_per_second: float | None = None
    disk_mb: float | None = None
    judged: tuple[str, ...] = ()
    """What must be the same for figures to be of the same thing: the held-out rows, and how these are judged."""
    worse: Interval | None = None
    """By how much it is worse than the best: the 95% interval of the difference, of the same rows."""
    p: float | None = None
    """How often chance makes that difference, after Holm's correction for all pairs of methods."""
    verdict: str = ""
    """best, no significant difference, worse, or why nothing can be said."""
    pareto: bool = False
    """Whether no other method is at least as good, as small and as fast, and better in one of these."""

    @property
    def interval(self) -> Interval | None:
        return interval(self.found) if self.found.figures else None

    def as_json(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if key != "found"} | {"interval": self.interval}


def row(heats: Sequence[Heat], failures: Sequence[str]) -> Row:
    """What the runs of one method came to."""
    entrant, note = heats[0].entrant.said, heats[0].note
    reasons = [failed or unsound(RunFolder(heat.folder)) for heat, failed in zip(heats, failures, strict=True)]
    ended = [held(heat.folder, heat.label) for heat, failed in zip(heats, reasons, strict=True) if not failed]
    failed = next(filter(None, reasons), "")
    if not ended:
        return Row(entrant, 0, failed, note)
    facts, folders = [run.facts for run in ended], [run.folder for run in ended]
    results = [one["result"] for one in facts]
    name = "loss" if results[0]["after"].get("accuracy") is None else "accuracy"
    before, after = ([one[side][name] for one in results if one[side]] for side in ("before", "after"))
    kept = [one["retention"]["kept"] for one in facts if "kept" in one.get("retention", {})]
    parameters, took = facts[0]["parameters"], list(map(Spent.of, folders))
    return Row(
        entrant,
        len(ended),
        failed,
        note,
        name,
        mean(before) if before else None,
        mean(after),
        found_of(ended, name, after),
        stdev(after) if len(after) > 1 else None,
        mean(one["all"][0] for one in kept) if kept else None,
        (min(one["all"][1] for one in kept), max(one["all"][2] for one in kept)) if kept else None,
        mean(one["text"][0] for one in kept) if kept else None,
        trainable=parameters["trainable"],
        share=parameters["trainable"] / parameters["total"],
        peak_memory_mb=median(one["peak_memory_mb"] for one in results),
        seconds=median(one["train_seconds"] for one in results),
        tokens_per_second=median(one["tokens_per_second"] for one in results),
        disk_mb=median(map(size_mb, folders)),
        steps=round(median(one.steps for one in took)),
        tokens=round(median(one.tokens for one in took)),
        judged=judged_by(ended[0], name),
    )


def unsound(folder: RunFolder) -> str:
    """Why a run that came to its end says nothing of its method, if so."""
    after = folder.facts["result"]["after"]
    if after is None:
        return (
            "nothing was measured: there are no held-out rows (data.eval_size, data.eval_path), or eval.enabled=false"
        )
    if not math.isfinite(after["loss"]):
        return f"it diverged: its loss afterwards is {after['loss']}; lower train.learning_rate"
    return ""


def found_of(ended: Sequence[Held], name: str, after: Sequence[float]) -> Found:
    """What is known of the figures of a method's runs: of each row, where all say so of the same rows."""
    share, rows = name == "accuracy", ended[0].facts["result"]["after"]["n"]
    if not all(run.kind for run in ended) or len({(run.kind, run.rows, len(run.each)) for run in ended}) > 1:
        return Found(tuple(after), rows, share)
    sign = 1 if share else -1
    each = [[math.nan if value is None else sign * value for value in run.each] for run in ended]
    weight = ended[0].facts[ended[0].kind].get("weights", ())
    return Found(tuple(after), rows, share, tuple(np.mean(each, 0).tolist()), tuple(weight))


def judged_by(run: Held, name: str) -> tuple[str, ...]:
    """What a run's figures are of."""
    if name == "accuracy":
        return run.rows or "", run.facts.get("judged", "")
    recipe = run.folder.recipe().value
    return run.rows or "", json.dumps([dump(recipe.objective), dump(recipe.rewards)])


def size_mb(folder: RunFolder) -> float:
    """What is to be kept of a run."""
    kept = [folder.path / name for name in ("adapter", "model") if (folder.path / name).is_dir()]
    return sum(file.stat().st_size for one in kept for file in one.rglob("*.safetensors")) / 1e6


def judged(rows: Sequence[Row]) -> list[Row]:
    """The rows, the best first, each with a verdict; behind them what was measured otherwise than the first one was,
    and those that failed."""
    ran = [one for one in rows if one.after is not None]
    sign = 1 if ran and ran[0].measure == "accuracy" else -1
    like = ran[0].judged if ran else ()
    ran.sort(key=lambda one: (one.judged == like, sign * float(one.after or 0)), reverse=True)
    made = []
    for one in held_against([one for one in ran if one.judged == like], sign) + [x for x in ran if x.judged != like]:
        others = [other for other in ran if other.method != one.method and other.judged == one.judged]
        better = [other for other in others if dominates(other, one, sign)]
        made.append(replace(one, verdict=verdict(one, ran[0]), pareto=not better))
    return made + [one for one in rows if one.after is None]


def held_against(rows: Sequence[Row], sign: int) -> list[Row]:
    """Each against the first, which is the best. It is so by the same figures, so that a verdict is one on any two of
    them: all pairs are counted."""
    pairs = corrected([chance(one.found, other.found) for one, other in combinations(rows, 2)])
    made = list(rows[:1])
    for other, p in zip(rows[1:], pairs, strict=False):  # of all pairs, those with the first come first
        worse = between(rows[0].found, other.found)
        made.append(replace(other, p=p, worse=worse if worse is None or sign > 0 else (-worse[1], -worse[0])))
    return made


def verdict(one: Row, best: Row) -> str:
    """What can be said of a method beside the best."""
    if one.method == best.method:
        return "best"
    if one.judged != best.judged:
        same = one.judged[:1] == best.judged[:1]
        other = "the loss of another objective" if one.measure == "loss" else "judged in another way"
        return f"not known: {other if same else 'measured on other rows; name data.eval_path'}"
    if one.p is None:
        return "not known: run more seeds"
    return "worse" if one.p < LEVEL else "no significant difference"


def dominates(one: Row, other: Row, sign: int) -> bool:
    pairs = [
        (sign * float(one.after or 0), sign * float(other.after or 0)),
        (-float(one.peak_memory_mb or 0), -float(other.peak_memory_mb or 0)),
        (-float(one.seconds or 0), -float(other.seconds or 0)),
    ]
    return all(mine >= its for mine, its in pairs) and any(mine > its for mine, its in pairs)
