"""What is learnt of texts, of one task or of several at once.

The loss of each task is a mean by itself, over all of it in a step; the step's loss is the mean of these, by their
weights. So a task counts as much as it should whether it has many rows in a step or few, long ones or short ones.
Letters of shapes: N sequences, n those of a task, C outputs of all tasks, c those of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import RecipeError
from .base import Loss, Tally, over, whole

if TYPE_CHECKING:
    from torch import Tensor

    from ..data.batch import Batch
    from ..data.task import Task


class Part(NamedTuple):
    """What one task comes to in a batch."""

    name: str
    alone: bool
    """Whether there is no other."""
    loss: Tensor
    """[n] or [m] of each thing that is judged."""
    weight: Tensor | None
    """How much each counts."""
    rows: int
    metrics: dict[str, Tally]

    @property
    def tally(self) -> Loss:
        return over(self.loss, self.weight)


def of_class(score: Tensor, batch: Batch, rows: list[int], smoothing: float) -> tuple[Tensor, dict[str, Tensor]]:
    """[n, c] -> [n] the cross-entropy of one class among others."""
    from torch.nn.functional import cross_entropy

    assert batch.label is not None
    label = batch.label[rows]
    loss = cross_entropy(score, label, reduction="none", label_smoothing=smoothing)
    return loss, {"accuracy": score.argmax(-1) == label}


def of_several(score: Tensor, batch: Batch, rows: list[int], smoothing: float) -> tuple[Tensor, dict[str, Tensor]]:
    """[n, c] -> [n] the mean over all classes of whether a text has them; right is who has all of them right."""
    from torch.nn.functional import binary_cross_entropy_with_logits

    marks = score.new_tensor([batch.marks[row] for row in rows])
    loss = binary_cross_entropy_with_logits(score, marks, reduction="none").mean(-1)
    return loss, {"accuracy": ((score > 0) == (marks > 0.5)).all(-1)}


def of_score(score: Tensor, batch: Batch, rows: list[int], smoothing: float) -> tuple[Tensor, dict[str, Tensor]]:
    """[n, 1] -> [n] how far off a score is, squared."""
    said = score.squeeze(-1)
    off = said if batch.grade is None else said - batch.grade[rows]
    return off.square(), {"error": off.abs()}


LOSSES: dict[str, Callable[..., tuple[Any, dict[str, Any]]]] = {
    "class": of_class,
    "several": of_several,
    "score": of_score,
}
"""By what a task tells."""


def rows_of(batch: Batch) -> dict[Task | None, list[int]]:
    """The numbers of each task's sequences, in the order in which tasks come; None where there are no tasks."""
    found: dict[Task | None, list[int]] = {}
    for row, task in enumerate(batch.tasks or (None,) * batch.answers):
        found.setdefault(task, []).append(row)
    return found


def told(batch: Batch, score: Tensor, smoothing: float) -> Iterator[Part]:
    """What the head says of each task's texts, held against what is right."""
    for task, rows in rows_of(batch).items():
        if task and task.kind not in LOSSES:
            continue
        own = score[rows][:, task.outputs] if task else score[rows]
        loss, seen = LOSSES[task.kind if task else "class"](own, batch, rows, smoothing)
        figures = {name: whole(value) for name, value in seen.items()}
        yield Part(*called(task), loss, None, len(rows), figures)


def called(task: Task | None) -> tuple[str, bool]:
    """A task's name, and whether there is no other."""
    return (task.name, task.alone) if task else ("labels", True)


def together(parts: Sequence[Part], amounts: Mapping[str, float], weights: Mapping[str, float], rows: int) -> Loss:
    """The loss of a batch of `rows` sequences, given how much of each task the whole step has.

    Sums and counts add up over the batches of a step: its counts come to the weights of the tasks that it has.
    """
    if parts[0].alone:
        only = parts[0].tally
        return Loss(only.sum, only.count, parts[0].metrics)
    seen = {part.name: part.rows for part in parts}
    watched = {f"share/{name}": Tally(seen.get(name, 0), rows) for name in amounts}
    sums, counts = [], []
    for part in parts:
        tally, share = part.tally, weights.get(part.name, 1.0) / amounts[part.name]
        sums.append(share * tally.sum)
        counts.append(share * tally.count)
        figures = {"loss": tally.tallies()["loss"], **part.metrics}
        watched |= {f"{name}/{part.name}": figure for name, figure in figures.items()}
    return Loss(sum(sums[1:], sums[0]), sum(counts[1:], counts[0]), watched)


def refuse_unfit(tasks: Sequence[Task], weights: Mapping[str, float], smoothing: float) -> None:
    """Raise RecipeError for options that these tasks make nothing of."""
    names = {task.name for task in tasks}
    if unknown := next((name for name in weights if name not in names), None):
        raise RecipeError(
            f"objective.weights: there is no task '{unknown}' ({', '.join(sorted(names))}); tasks are named by"
            " data.task and by the task of each of data.also"
        )
    if weights and len(tasks) == 1:
        raise RecipeError("objective.weights: there is one task, and nothing to weigh it against; leave it out")
    if smoothing and not any(task.kind == "class" for task in tasks):
        raise RecipeError("objective.label_smoothing: no task tells one class among others; leave it out")
