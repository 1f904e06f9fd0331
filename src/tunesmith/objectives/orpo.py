"""Learn to say the better of two answers rather than the worse, in one."""

from ..config.record import Positive
from ._pairs import Pairs, pairs, watched
from .base import objective, over


@objective("orpo")
class ORPO(Pairs):
    """Odds ratio preference optimisation: fine-tuning on the better answer, while its odds rise over the worse one's.

    Without a reference. Hong et al. 2024, arXiv:2403.07691.
    """

    beta: Positive = 0.1
    """How much the odds count beside saying the better answer; lambda in the paper."""

    def odds(self, batch, logp, **_):
        chance = logp.mean()
        better, worse = pairs(chance - log_not(chance))
        return better - worse

    def loss(self, batch, logp, entropy=None):
        from torch.nn.functional import logsigmoid

        chance = logp.mean()
        (better, worse), (said, _) = pairs(chance - log_not(chance)), pairs(chance)
        ratio = better - worse
        figures = {"nll_loss": -said, "log_odds_ratio": logsigmoid(ratio), "log_odds_chosen": ratio}
        return over(
            -said - self.beta * logsigmoid(ratio), **figures, **watched(self.beta * chance, logp.sum(), entropy)
        )


def log_not(logp):
    """The logarithm of the probability that it is not so; exact near 0 and near 1, and of 1 itself finite."""
    from math import log

    logp = logp.clamp(max=-1e-7)
    return (-logp.expm1()).log().where(logp > -log(2), (-logp.exp()).log1p())
