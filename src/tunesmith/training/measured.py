"""Measuring a run before and after it learns, once each, and noting what was found."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..errors import RecipeError
from ..evaluate.evaluate import Examiner, Measured
from ..evaluate.metrics import gain
from ..evaluate.retention import Known, ask, retained, sentence
from ..methods.base import Method
from ..model.policy import Policy
from ..model.reference import untaught
from ..run import Run
from ..runs import RunFolder
from .progress import Progress


def measure_before(
    examiner: Examiner, policy: Policy, method: Method, folder: RunFolder, progress: Progress
) -> dict | None:
    """Measure the model as it was given: a soft prompt says something already before it has learnt."""
    with untaught(policy.model, method):
        return measure(examiner, policy, "before", folder, progress)


def measure(examiner: Examiner, policy: Policy, side: str, folder: RunFolder, progress: Progress) -> dict | None:
    """Measure a side, before or after, and note it in the run folder; what was measured once is not measured again."""
    if not examiner.settings.enabled:
        return None
    if examiner.settings.retention:
        remember(examiner, policy, side, folder, progress)
    if not examiner.examples:
        progress.say("evaluation: there are no held-out rows; name some with data.eval_path or raise data.eval_size")
        return None
    known = folder.facts.get(side)
    if known:
        return known
    progress.say(f"measuring {side} training, on {len(examiner.examples)} held-out rows: {examiner.way}")
    measured = examiner.measure(policy)
    facts: dict[str, Any] = {"judged": examiner.way}
    scores = measured.scores
    if measured.each:
        worth = folder.facts.get("worth", {}) | {side: measured.each}
        facts["worth"] = worth
        if side == "after" and "before" in worth:
            scores = replace(scores, watched=scores.watched | gain(worth["before"], worth["after"]))
    facts |= by_row(measured, folder, side)
    samples = folder.facts.get("samples") or examiner.questions()
    facts["samples"] = [sample | {side: said} for sample, said in zip(samples, measured.said, strict=True)]
    folder.note(**{side: scores.as_json()}, **facts)
    return scores.as_json()


def forget_after(folder: RunFolder) -> None:
    """Have what comes after training measured anew, with all that was found out of it."""
    facts, gone = folder.facts, ("after", "kept")  # what is kept of before is a matter of both
    sides = {name: facts[name] for name in ("retention", "worth", "right", "losses") if name in facts}
    left = {name: {key: one for key, one in known.items() if key not in gone} for name, known in sides.items()}
    folder.note(after=None, **left)


def by_row(measured: Measured, folder: RunFolder, side: str) -> dict[str, Any]:
    """What each row came to, so that runs can be compared row by row."""
    found: dict[str, Any] = {}
    if measured.right:
        found["right"] = folder.facts.get("right", {}) | {side: measured.right}
    if measured.losses:
        sizes = {"tokens": sum(measured.weights), "weights": measured.weights}
        found["losses"] = folder.facts.get("losses", {}) | {side: measured.losses} | sizes
    return found


def remember(examiner: Examiner, policy: Policy, side: str, folder: RunFolder, progress: Progress) -> None:
    """Measure on a side what the model knows beside its task, and once both are known, what of it is left."""
    if side in (known := folder.facts.get("retention", {})):
        return
    progress.say(f"measuring {side} training what is known of other things: 200 questions, and general text")
    known |= {side: ask(policy.model, examiner.material.renderer, examiner.settings.batch_size).as_json()}
    if side == "after" and "before" in known:
        kept = retained(Known.from_json(known["before"]), Known.from_json(known["after"]))
        known |= {"kept": {name: [share, *spread] for name, (share, spread) in kept.items()}}
        progress.say(sentence(kept))
    folder.note(retention=known)


def refuse_retention(run: Run) -> None:
    """What a model knows of other things is asked of one that writes."""
    if run.eval.retention and not run.objective.writes:
        raise RecipeError(
            f"eval.retention: asks models that write, and {run.objective.name} makes one that does not; leave it off"
        )
