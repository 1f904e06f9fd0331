"""Learn which of two answers is the better, without a reward model."""

from ..config.record import Positive
from ._pairs import Pairs, pairs, watched
from .base import objective, over


@objective("dpo")
class DPO(Pairs):
    """Direct preference optimisation: widen the gap between better and worse, seen from the model as it began.

    Rafailov et al. 2023, arXiv:2305.18290.
    """

    beta: Positive = 0.1
    """How strongly to stay near the reference."""

    def loss(self, batch, logp, reference):
        from torch.nn.functional import logsigmoid

        gain = (logp - reference).sum()
        better, worse = pairs(gain)
        return over(-logsigmoid(self.beta * (better - worse)), **watched(self.beta, gain, logp.sum()))
