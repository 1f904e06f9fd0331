"""From sources to sequences: what is trained on, what is measured, and what was left out of either."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ...errors import DataError, RecipeError
from ..dataset import Drawn
from ..example import Example
from ..reading.places import Place
from ..rendering.answers import WRITTEN
from ..rendering.render import NoTarget, Renderer, Tokens, TooLong
from ..task import Task
from .known import leaks
from .mix import mix
from .part import FEW, LIKED, MEND, Part, held
from .store import Mixed, Stored
from .tasks import distinct, refuse_tasks, tasks_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from ...run import Run


@dataclass
class Material:
    """All that a run reads of its data."""

    renderer: Renderer
    sequences: Sequence[Tokens]
    """What is trained on."""
    fingerprint: str
    """A hash of everything that is trained on, and of its order."""
    test: list[Example]
    """Measured before and after."""
    validation: list[Example]
    """Measured while training."""
    options: tuple[str, ...]
    """The answers that occur, where they are so few that a task is a choice between them."""
    counts: dict[str, int]
    """How many rows were read, left out, cut; how many tokens there are."""
    asked: Sequence[Example] = ()
    """Of every sequence that is a prompt, its example."""

    @property
    def measured(self) -> str:
        """A hash of all held-out rows that are measured, wherever they stand."""
        rows = [replace(row, origin="") for row in (*self.test, *self.validation)]
        return hashlib.sha256(repr(rows).encode()).hexdigest()

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(name for task in self.tasks for name in task.names)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What is told of texts, each with its part of the head."""
        return tuple(self.renderer.tasks.values())


def prepare(
    run: Run, found: Sequence[Place], tokenizer: PreTrainedTokenizerFast, say: Callable[[str], None]
) -> Material:
    """Read and render a run's data, or take them from the cache; what was left out or cut is counted and said."""
    refuse_tasks(run)
    renderer = Renderer(tokenizer, run.data)
    if renderer.plain and run.objective.targets in WRITTEN:
        say(f"{renderer.name} brings no chat template: a plain one is used ('user: ...', 'assistant: ...')")
    for place in found:
        unread = f"; not read: {', '.join(place.unread)}" if place.unread else ""
        say(f"data: {place.name} {place.reading}{unread}")
    parts = [Part(run, place, renderer, say).stored() for place in found]
    for place, part in zip(found, parts, strict=True):
        check(run, place, part, say)
    check_leaks(run, parts, say)
    return put_together(run, parts, renderer, say)


def check(run: Run, place: Place, part: Stored, say: Callable[[str], None]) -> None:
    """Say what the checks found in a source, and stop at errors unless told otherwise."""
    if place.most is not None and part.facts["offered"] < place.most:
        say(
            f"data: {place.name}: {place.most:,} rows are asked for ({place.asked}), and there are"
            f" {part.facts['offered']:,} to train on: each is taken once, and none again to make up the number"
        )
    for sentence in part.facts["lint"]:
        say(f"data: {place.name}: {sentence}")
    if part.facts["errors"] and run.data.on_lint == "stop":
        found, first = ", ".join(part.facts["errors"]), part.facts["first error"]
        raise DataError(f"{place.name}: the checks found errors: {found}; first {first}; {SHOWS}")


def check_leaks(run: Run, parts: Sequence[Stored], say: Callable[[str], None]) -> None:
    """The same of rows that are trained on and held out, in whichever sources."""
    found, rows = leaks(parts)
    if found is None:
        return
    say(f"data: {found.sentence(rows)}")
    if found.severity == "error" and run.data.on_lint == "stop":
        where = ", ".join(origin for origin, _ in found.examples)
        raise DataError(
            f"the checks found errors: leakage: {found.count:,} rows that are trained on are held out too, so that what"
            f" is measured would be too good; first {where}; {SHOWS}"
        )


SHOWS = (
    "`tunesmith data lint RECIPE` shows every row and writes a copy without them; data.on_lint=warn trains all the same"
)


def put_together(run: Run, parts: list[Stored], renderer: Renderer, say: Callable[[str], None]) -> Material:
    """What is trained on and what is measured, of all sources."""
    trained = parts[: 1 + len(run.data.also)]
    for source, part in zip((run.data, *run.data.also), trained, strict=True):
        if not len(part):
            raise DataError(f"{source.path}: no row is left to train on: {part.facts['skipped'] or 'all are held out'}")
    labels = sorted({label for part in trained for label in part.facts["labels"]})
    if run.objective.targets == "liked" and labels != sorted(LIKED):
        raise DataError(
            f"{run.data.path}: all {len(trained[0]):,} rows are {' and '.join(labels)}; objective {run.objective.name}"
            " learns from both kinds: add rows of the other, or take objective=sft for liked ones alone"
        )
    tasks = tasks_of(run, trained)
    renderer = Renderer(renderer.tokenizer, run.data, tasks=distinct(tasks))
    size = run.objective.rendered
    part, row = mix(run.data, [len(one) // size for one in trained], run.train.seed)
    row = (row[:, None] * size + np.arange(size)).ravel()  # what is judged together stays together
    sequences = Mixed(trained, np.repeat(part, size), row, tasks, labels)
    choices = options([part.facts["answers"] for part in trained]) if run.objective.targets == "answers" else ()
    test, lost = measurable(run, parts, "test", renderer, choices)
    validation, _ = measurable(run, parts, "validation", renderer, ())
    if not test:
        test, lost = measurable(run, parts, "validation", renderer, choices)
    refuse_unmeasured(run, trained, len(test), len(validation))
    counts = counted(parts, sequences, len(test), lost)
    say("data: " + ", ".join(f"{number:,} {name}" for name, number in counts.items() if number))
    if first := next((part.facts["first skipped"] for part in parts if part.facts["first skipped"]), ""):
        say(f"data: the first row left out: {first}")
    asked = [held(one, "train") for one in trained] if run.objective.targets == "prompts" else []
    numbers = zip(part.tolist(), row.tolist(), strict=True) if asked else ()  # of pairs there are two rows a part
    prompts = [asked[at][number][1] for at, number in numbers]
    mark = with_truths(sequences.fingerprint, prompts if run.rewards else ())
    return Material(renderer, sequences, mark, test, validation or test, choices, counts, prompts)


def with_truths(fingerprint: str, prompts: Sequence[Example]) -> str:
    """The fingerprint of sequences, and of what rewards look at beside prompts."""
    if not prompts:
        return fingerprint
    made = hashlib.sha256(fingerprint.encode())
    for one in prompts:
        made.update(repr((one.truth, one.gold, one.others)).encode())
    return made.hexdigest()


def refuse_unmeasured(run: Run, trained: Sequence[Stored], test: int, validation: int) -> None:
    """Measuring while training where there is no row for it, or none but those that were to be left for the end."""
    strategy, size = run.train.eval_strategy, run.data.validation_size
    if strategy == "no" or validation:
        return
    if size:
        rows = sum(part.facts["counts"].get(split, 0) for part in trained for split in ("train", "test"))
        raise RecipeError(
            f"data.validation_size={size:g}: none of {rows:,} rows is left in that share to measure on while training;"
            " name a larger one, or more rows"
        )
    if not test:
        raise RecipeError(
            f"train.eval_strategy={strategy}: there are no held-out rows to measure on; name some with data.eval_path,"
            " raise data.eval_size, or set train.eval_strategy=no"
        )


def counted(parts: list[Stored], sequences: Mixed, measured: int, lost: Counter[str]) -> dict[str, int]:
    """How much there is of everything."""
    rows, skipped = Counter[str](), Counter(lost)
    for part in parts:
        rows.update(part.facts["counts"])
        skipped.update(part.facts["skipped"])
    return {
        "trained rows": rows["train"],
        "trained sequences": len(sequences),
        "trained tokens": sum(sequences.lengths),
        "target tokens": sequences.targets,
        "held-out rows": rows["test"] or rows["validation"],
        "measured rows": measured,
        "sequences cut": rows["sequences cut"],
        "tokens cut": rows["tokens cut"],
        "target tokens cut": rows["target tokens cut"],
        "answers without a stop token": rows["answers without a stop token"],
        **{f"rows left out: {reason}": number for reason, number in skipped.items() if number},
    }


def measurable(
    run: Run, parts: Sequence[Stored], split: str, renderer: Renderer, choices: tuple[str, ...]
) -> tuple[list[Example], Counter[str]]:
    """At most eval.max_samples held-out examples that have a target, always the same, and how many do not count; of
    a choice those count whose answer was trained on."""
    drawn = Drawn[Example](run.eval.max_samples)
    for part in parts:
        for key, example in held(part, split):
            drawn.add(key, example)
    known = [example for _, example in drawn if not choices or example.gold in choices]
    fit = []
    for example, made in zip(known, renderer.render_many(known, run.objective.targets), strict=True):
        if not isinstance(made, NoTarget):
            fit.append(example)
        elif run.data.on_bad_row == "error" and not isinstance(made, TooLong):
            raise DataError(f"{example.origin}: {made}; {MEND}")
    return fit, Counter(
        {"answer not in training rows": len(drawn) - len(known), "nothing to learn": len(known) - len(fit)}
    )


def options(answers: Sequence[dict[str, int] | None]) -> tuple[str, ...]:
    """The answers that occur, if they are few and each is given time and again; else nothing."""
    counts = Counter[str]()
    for one in answers:
        if one is None:
            return ()
        counts.update(one)
    return tuple(sorted(counts)) if 2 <= len(counts) <= FEW and min(counts.values()) >= 3 else ()
