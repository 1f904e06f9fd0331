"""Learn to answer, and to tell what texts are, at once."""

from typing import ClassVar

from ..config.record import Fraction, Positive
from ..errors import RecipeError
from ._tasks import Part, called, refuse_unfit, rows_of, together, told
from .base import Beside, Objective, Targets, objective


@objective("mixed")
class Mixed(Objective):
    """Fine-tuning on answers and classification together, over one model: what it says of a text's end goes to a head
    beside the language model's.

    Rows with answers are learnt as by sft, labelled ones as by classify; each source is of a task. The loss is the
    mean of the tasks' means, of answers over their tokens, so that neither long answers nor many rows outweigh others.
    """

    label_smoothing: Fraction = 0.0
    """Share of the target spread evenly over all labels, where a text has one class (Szegedy et al. 2016)."""
    weights: dict[str, Positive] | None = None
    """How much tasks count beside each other, by their names; 1 each unless given. Answers without a task of their own
    are `answers`, labels `labels`."""

    targets: ClassVar[Targets] = "mixed"

    def outputs(self, labels):
        return Beside(labels)

    def fits(self, tasks):
        kinds = {task.kind == "answers" for task in tasks}
        if kinds != {True, False}:
            what, other = ("answers", "sft") if True in kinds else ("labels", "classify")
            raise RecipeError(
                f"objective: mixed learns answers and labels, and all rows have {what}; name rows of the other kind in"
                f" data.also, or take objective={other}"
            )
        refuse_unfit(tasks, self.weights or {}, self.label_smoothing)

    def amount(self, tokens):
        name, learnt = called(tokens.task)[0], sum(tokens.learn[1:])
        if tokens.weights is not None:
            return name, sum(tokens.weights[1:])
        return name, float(learnt or 1)

    def loss(self, batch, logp, score, whole=None):
        parts = [*said(batch, logp), *told(batch, score, self.label_smoothing)]
        return together(parts, whole or {}, self.weights or {}, batch.answers)


def said(batch, logp):
    """What each task's answers come to, a token at a time."""
    for task, rows in rows_of(batch).items():
        if task and task.kind == "answers":
            own = logp.owner.new_tensor(rows)
            here = (logp.owner[:, None] == own).any(-1)
            weight = None if logp.weight is None else logp.weight[here]
            yield Part(*called(task), -logp.token[here], weight, len(rows), {})
