"""Learn to say the answers."""

from .base import Objective, objective, over


@objective("sft")
class SFT(Objective):
    """Supervised fine-tuning: raise the probability of every token of the answers, by its weight."""

    def loss(self, batch, logp):
        return over(-logp.token, logp.weight)
