"""Learn which of two answers is the better, with no other model beside it."""

from typing import Annotated

from annotated_types import Ge, Lt

from ..config.record import NonNegative, Positive
from ._losses import smoothed
from ._pairs import Pairs, pairs, watched
from .base import objective, over


@objective("simpo")
class SimPO(Pairs):
    """Simple preference optimisation: a token of the better answer is to be likelier than one of the worse.

    By a margin, and without a reference. Meng et al. 2024, arXiv:2405.14734.
    """

    beta: Positive = 2.0
    """What the log-probability of an answer's token is multiplied by to be its reward."""
    simpo_gamma: NonNegative = 1.0
    """By how much the better answer's reward is to be larger."""
    label_smoothing: Annotated[float, Ge(0), Lt(0.5)] = 0.0
    """Share of the pairs that are thought to be the wrong way round."""

    def odds(self, batch, logp, **_):
        better, worse = pairs(self.beta * logp.mean())
        return better - worse

    def loss(self, batch, logp, entropy=None):
        reward = self.beta * logp.mean()
        better, worse = pairs(reward)
        loss = smoothed(better - worse - self.simpo_gamma, self.label_smoothing)
        return over(loss, **watched(reward, logp.sum(), entropy))
