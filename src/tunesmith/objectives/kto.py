"""Learn from single answers that people liked or did not."""

from typing import Any, ClassVar, Literal

from ..config.record import Positive
from .base import Referred, Tally, Targets, objective, over, some


@objective("kto")
class KTO(Referred):
    """Kahneman-Tversky optimisation: raise liked answers and lower disliked ones, by the value of prospect theory.

    Gains count from a baseline, the policy's distance from the reference, which is estimated over the whole step on
    answers that belong to other prompts. Of pairs of answers, the better is liked and the worse is not.
    Ethayarajh et al. 2024, arXiv:2402.01306.
    """

    loss_type: Literal["kto", "apo_zero_unpaired"] = "kto"
    """apo_zero_unpaired has no baseline: gains count from nothing (arXiv:2408.06266)."""
    beta: Positive = 0.1
    """How strongly to stay near the reference."""
    desirable_weight: Positive = 1.0
    """Weight of an answer that was liked."""
    undesirable_weight: Positive = 1.0
    """Weight of one that was not."""

    targets: ClassVar[Targets] = "liked"

    def asks(self, given):
        return super().asks(given) and (given != "baseline" or self.loss_type == "kto")

    def measure(self, batch, logp, reference):
        gain = (logp - reference).sum()
        return Tally(gain.sum(), gain.numel())

    def loss(self, batch, logp, reference, entropy=None, baseline=0.0):
        gain, liked, kl = (logp - reference).sum(), batch.label == 1, max(0.0, baseline)
        above = self.beta * (gain - kl)
        weight = liked * self.desirable_weight + ~liked * self.undesirable_weight
        value = above.where(liked, -above).sigmoid()
        said = logp.sum()
        watched: dict[str, Any] = {"accuracy": (above > 0) == liked, "kl": Tally(kl, 1)}
        watched |= {"rewards/chosen": some(self.beta * gain, liked), "rewards/rejected": some(self.beta * gain, ~liked)}
        watched |= {"logps/chosen": some(said, liked), "logps/rejected": some(said, ~liked)}
        watched |= {} if entropy is None else {"entropy": entropy}
        return over(weight * (1 - value), **watched)
