"""Learn to tell which class a text is of."""

from typing import ClassVar

from ..config.record import Fraction
from .base import Objective, Targets, objective, over


@objective("classify")
class Classify(Objective):
    """Sequence classification: a new linear head over the model, one output a label."""

    label_smoothing: Fraction = 0.0
    """Share of the target spread evenly over all labels (Szegedy et al. 2016)."""

    targets: ClassVar[Targets] = "label"

    def outputs(self, labels):
        return labels

    def loss(self, batch, score):
        from torch.nn.functional import cross_entropy

        loss = cross_entropy(score, batch.label, reduction="none", label_smoothing=self.label_smoothing)
        return over(loss, accuracy=score.argmax(-1) == batch.label)
