"""Learn to continue text."""

from typing import ClassVar

from .base import Objective, Targets, objective, over


@objective("pretrain")
class Pretrain(Objective):
    """Continued pre-training: raise the probability of every token of the text, nothing masked."""

    targets: ClassVar[Targets] = "text"

    def loss(self, batch, logp):
        return over(-logp.token)
