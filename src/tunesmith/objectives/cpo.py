"""Learn which of two answers is the better, and to say it, with no other model beside it."""

from typing import Annotated

from annotated_types import Ge, Lt

from ..config.record import NonNegative, Positive
from ._losses import smoothed
from ._pairs import Pairs, pairs, watched
from .base import objective, over


@objective("cpo")
class CPO(Pairs):
    """Contrastive preference optimisation: DPO as if the reference held all answers for alike, and a term beside it.

    That term says the better answer. Xu et al. 2024, arXiv:2401.08417.
    """

    beta: Positive = 0.1
    """What the log-probability of an answer is multiplied by to be its reward."""
    cpo_alpha: NonNegative = 1.0
    """How much it counts to say the better answer, by the log-probability of its tokens as a mean."""
    label_smoothing: Annotated[float, Ge(0), Lt(0.5)] = 0.0
    """Share of the pairs that are thought to be the wrong way round."""

    def odds(self, batch, logp, **_):
        better, worse = pairs(self.beta * logp.sum())
        return better - worse

    def loss(self, batch, logp, entropy=None):
        reward, said = self.beta * logp.sum(), pairs(logp.mean())[0]
        better, worse = pairs(reward)
        loss = smoothed(better - worse, self.label_smoothing) - self.cpo_alpha * said
        return over(loss, nll_loss=-said, **watched(reward, logp.sum(), entropy))
