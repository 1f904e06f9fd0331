"""Short runs, by which settings are judged before they are used: on rows that nobody else measures on."""

from __future__ import annotations

import math

from ..files import remove
from ..run import Run
from ..runs import RunFolder

VALIDATION = 0.1
"""Share of the rows to train on that short runs are judged on, where the recipe keeps none apart."""
MEASURED = 200
"""Rows of these that are looked at; the loss tells settings apart by fewer than accuracy does."""
PACE = 8
"""Steps by which it is found out how much a step takes."""


def judging(run: Run, steps: int, of: float) -> list[str]:
    """The words that make a recipe a short run of these steps, in place of a run `of` so many."""
    aside = run.data.validation_size or VALIDATION
    warmup = run.train.warmup_steps
    return [
        *alone(steps),
        *([f"train.warmup_steps={min(0.5, warmup / max(of, 1)):.4g}"] if warmup >= 1 else []),  # else it never ends
        f"data.validation_size={aside}",
        f"eval.max_samples={min(run.eval.max_samples, MEASURED)}",
        "train.eval_strategy=steps",
        f"train.eval_steps={steps}",
    ]


def alone(steps: int) -> list[str]:
    """The words that leave of a recipe nothing but its first steps."""
    ends = [f"train.max_steps={steps}", "train.num_train_tokens=null", "train.max_seconds=null"]
    quiet = ["notify=[]", "train.report_to=[]", "train.logging_steps=1", "train.save_strategy=no"]
    return [*ends, *quiet, "eval.enabled=false", "train.eval_strategy=no"]


def figure(folder: RunFolder) -> float:
    """What a short run came to: its loss on validation rows."""
    found = [line["eval_loss"] for line in folder.metrics if "eval_loss" in line]
    return found[-1] if found and math.isfinite(found[-1]) else math.inf


CUT = ("stopped", "interrupted", "died", "badenvironment")
"""How a run ends that says nothing of its settings."""


def anew(folder: RunFolder) -> None:
    """Have a short run that was cut off begin again: it may have been stopped before it was measured."""
    if (folder.path / "run.json").is_file() and folder.status in CUT:
        remove(folder.path)


def lighten(folder: RunFolder) -> None:
    """Of a short run figures are kept, and no weights."""
    for name in ("adapter", "model", "checkpoints"):
        remove(folder.path / name)


def pace(folder: RunFolder, kind: str) -> float:
    """What a step takes of steps, tokens or seconds, by all but the first quarter of a run's, which are slower."""
    lines = [line for line in folder.metrics if "tokens" in line]
    took = [line[kind] if kind in line else line["tokens"] / line["tokens_per_second"] for line in lines]
    if kind == "steps" or not lines:
        return 1.0
    begin = len(lines) // 4
    if begin == 0:
        return took[-1] / lines[-1]["step"]
    return (took[-1] - took[begin - 1]) / (lines[-1]["step"] - lines[begin - 1]["step"])
