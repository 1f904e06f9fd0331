"""What is told of a text: its class, its classes or its score, as the task that it is of has it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..example import Example
from ..task import KINDS, TOLD, Task, kind_of, name_of
from .tokens import NoTarget, Tokens


def told(example: Example, tasks: Mapping[str, Task]) -> dict[str, Any]:
    """The fields of Tokens that say it; without tasks those alone that need none. Raises NoTarget."""
    kind = kind_of(example)
    if example.text is None or kind not in TOLD:
        raise NoTarget("has no text with a label; objective classify needs both (data.format.name=labelled)")
    grade = {} if example.score is None else {"grade": example.score}
    if not tasks:
        return grade
    task = task_of(example, tasks)
    if task.kind != kind:
        raise NoTarget(f"tells {KINDS[kind]}, and the training rows of its task tell {KINDS[task.kind]}")
    labels: Sequence[str] = (str(example.label),) if kind == "class" else example.labels or ()
    if unknown := next((label for label in labels if label not in task.labels), None):
        raise NoTarget(f"the label '{unknown}' does not occur in the training rows ({', '.join(task.labels)})")
    said = {
        "class": lambda: {"label": task.labels.index(str(example.label))},
        "several": lambda: {"marks": task.marks(labels)},
        "score": lambda: grade,
    }
    return {"task": task} | said[kind]()


def in_tasks(
    made: Iterable[list[Tokens] | NoTarget], examples: Iterable[Example], tasks: Mapping[str, Task]
) -> list[list[Tokens] | NoTarget]:
    """Sequences of examples as those of their tasks, if there are any."""
    found: list[list[Tokens] | NoTarget] = []
    for one, example in zip(made, examples, strict=True):
        if isinstance(one, list) and tasks:
            try:
                one = [replace(tokens, task=task_of(example, tasks)) for tokens in one]
            except NoTarget as fault:
                one = fault
        found.append(one)
    return found


def task_of(example: Example, tasks: Mapping[str, Task]) -> Task:
    """The task that an example is of. Raises NoTarget."""
    name = name_of(example.task, kind_of(example))
    if name not in tasks:
        raise NoTarget(f"is of the task '{name}', of which there are no training rows ({', '.join(tasks)})")
    return tasks[name]
