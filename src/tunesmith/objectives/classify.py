"""Learn to tell which class a text is of, or several such things at once."""

from typing import ClassVar

from ..config.record import Fraction, Positive
from ._tasks import called, refuse_unfit, together, told
from .base import Objective, Targets, objective


@objective("classify")
class Classify(Objective):
    """Sequence classification: a new linear head over the model, one output a label.

    A text has one class, several classes (a list of them) or a score. Rows of several tasks (data.task) share the
    model, and each task has its own part of the head (Caruana 1997); the loss is the mean of the tasks' means.
    """

    label_smoothing: Fraction = 0.0
    """Share of the target spread evenly over all labels, where a text has one class (Szegedy et al. 2016)."""
    weights: dict[str, Positive] | None = None
    """How much tasks count beside each other, by their names; 1 each unless given."""

    targets: ClassVar[Targets] = "label"

    def outputs(self, labels):
        return labels

    def fits(self, tasks):
        refuse_unfit(tasks, self.weights or {}, self.label_smoothing)

    def amount(self, tokens):
        return called(tokens.task)[0], 1.0

    def loss(self, batch, score, whole=None):
        parts = list(told(batch, score, self.label_smoothing))
        return together(parts, whole or {}, self.weights or {}, batch.answers)
