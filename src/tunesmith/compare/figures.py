"""What a comparison found: a row a method, over its seeds, and what of the differences is more than chance."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from statistics import mean, median, stdev
from typing import Any

from .. import passport
from ..config.load import dump
from ..runs import RunFolder
from .budget import Spent
from .contest import Heat

SURE = 1.96
"""Standard errors within which chance stays 19 times of 20."""


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
    error: float | None = None
    """Standard error of `after`: of the held-out rows, and of the seeds."""
    spread: float | None = None
    """Standard deviation over the seeds: how stable it is."""
    retained: float | None = None
    """Share of general skills that is left."""
    retained_interval: tuple[float, float] | None = None
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
    """What must be the same for figures to be of the same thing: the held-out rows, and whose loss a loss is."""
    verdict: str = ""
    """best, no significant difference, worse, or why nothing can be said."""
    pareto: bool = False
    """Whether no other method is at least as good, as small and as fast, and better in one of these."""

    @property
    def interval(self) -> tuple[float, float] | None:
        if self.after is None or self.error is None:
            return None
        return self.after - SURE * self.error, self.after + SURE * self.error

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"interval": self.interval}


def row(heats: Sequence[Heat], failures: Sequence[str]) -> Row:
    """What the runs of one method came to."""
    entrant, note = heats[0].entrant.said, heats[0].note
    ended = [RunFolder(heat.folder) for heat, failed in zip(heats, failures, strict=True) if not failed]
    failed = next(filter(None, failures), "")
    if not ended:
        return Row(entrant, 0, failed, note)
    facts = [folder.facts for folder in ended]
    results = [one["result"] for one in facts]
    name = "accuracy" if (results[0]["after"] or {}).get("accuracy") is not None else "loss"
    before, after = ([one[side][name] for one in results if one[side]] for side in ("before", "after"))
    kept = [one["retention"]["kept"] for one in facts if "kept" in one.get("retention", {})]
    parameters, took = facts[0]["parameters"], list(map(Spent.of, ended))
    return Row(
        entrant,
        len(ended),
        failed,
        note,
        name,
        mean(before) if before else None,
        mean(after) if after else None,
        error_of(name, after, results[0]["after"]["n"]) if after else None,
        stdev(after) if len(after) > 1 else None,
        mean(one["all"][0] for one in kept) if kept else None,
        (min(one["all"][1] for one in kept), max(one["all"][2] for one in kept)) if kept else None,
        mean(one["text"][0] for one in kept) if kept else None,
        trainable=parameters["trainable"],
        share=parameters["trainable"] / parameters["total"],
        peak_memory_mb=median(one["peak_memory_mb"] for one in results),
        seconds=median(one["train_seconds"] for one in results),
        tokens_per_second=median(one["tokens_per_second"] for one in results),
        disk_mb=median(map(size_mb, ended)),
        steps=round(median(one.steps for one in took)),
        tokens=round(median(one.tokens for one in took)),
        judged=judged_by(ended[0], name),
    )


def error_of(name: str, found: Sequence[float], n: int) -> float | None:
    """The standard error of a mean over seeds. Accuracies are of the same held-out rows, so that more seeds do not make
    these more; of a loss only its seeds are known."""
    seeds = stdev(found) ** 2 / len(found) if len(found) > 1 else 0.0
    if name == "accuracy":
        share = min(max(mean(found), 0.5 / n), 1 - 0.5 / n)  # of none or all right something may still be chance
        return math.sqrt(share * (1 - share) / n + seeds)
    return math.sqrt(seeds) if len(found) > 1 else None


def judged_by(folder: RunFolder, name: str) -> tuple[str, ...]:
    """What a run's figures are of."""
    rows = str(passport.read(folder.path)["data"].get(passport.MEASURED, ""))
    return (rows,) if name == "accuracy" else (rows, json.dumps(dump(folder.recipe().value.objective)))


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
    for one in ran:
        others = [other for other in ran if other is not one and other.judged == one.judged]
        better = [other for other in others if dominates(other, one, sign)]
        made.append(replace(one, verdict=verdict(one, ran[0]), pareto=not better))
    return made + [one for one in rows if one.after is None]


def verdict(one: Row, best: Row) -> str:
    """Against the best: held-out rows are taken as drawn for each by itself, though they are the same, so that what is
    called a difference is one."""
    if one is best:
        return "best"
    if one.judged != best.judged:
        same = one.judged[:1] == best.judged[:1]
        why = "the loss of another objective" if same else "measured on other rows; name data.eval_path"
        return f"not known: {why}"
    if one.error is None or best.error is None:
        return "not known: run more seeds"
    apart = abs(float(one.after or 0) - float(best.after or 0))
    return "worse" if apart > SURE * math.hypot(one.error, best.error) else "no significant difference"


def dominates(one: Row, other: Row, sign: int) -> bool:
    pairs = [
        (sign * float(one.after or 0), sign * float(other.after or 0)),
        (-float(one.peak_memory_mb or 0), -float(other.peak_memory_mb or 0)),
        (-float(one.seconds or 0), -float(other.seconds or 0)),
    ]
    return all(mine >= its for mine, its in pairs) and any(mine > its for mine, its in pairs)
