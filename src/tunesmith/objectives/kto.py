"""Learn from single answers that people liked or did not."""

from typing import ClassVar

from ..config.record import Positive
from .base import Objective, Tally, Targets, objective, over


@objective("kto")
class KTO(Objective):
    """Kahneman-Tversky optimisation: raise liked answers and lower disliked ones, by the value of prospect theory.

    Gains count from a baseline, the policy's distance from the reference, which is estimated over the whole step on
    answers that belong to other prompts. Ethayarajh et al. 2024, arXiv:2402.01306.
    """

    beta: Positive = 0.1
    """How strongly to stay near the reference."""
    desirable_weight: Positive = 1.0
    """Weight of an answer that was liked."""
    undesirable_weight: Positive = 1.0
    """Weight of one that was not."""

    targets: ClassVar[Targets] = "liked"

    def measure(self, batch, logp, reference):
        gain = (logp - reference).sum()
        return Tally(gain.sum(), gain.numel())

    def loss(self, batch, logp, reference, baseline):
        gain, liked = (logp - reference).sum(), batch.label == 1
        above = self.beta * (gain - max(0.0, baseline))
        weight = liked * self.desirable_weight + ~liked * self.undesirable_weight
        value = above.where(liked, -above).sigmoid()
        return over(weight * (1 - value), accuracy=(above > 0) == liked, rewards=self.beta * gain)
