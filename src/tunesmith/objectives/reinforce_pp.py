"""Learn from answers by their reward, without a value model and without groups."""

from __future__ import annotations

from ..config.record import Fraction, NonNegative
from ._online import Gaining, clipped, whiten
from .base import objective, over


@objective("reinforce_pp")
class ReinforcePP(Gaining):
    """REINFORCE++: PPO's clipped step with rewards of tokens, whitened over the whole rollout, as their advantage.

    A token's reward is what its distance from the reference costs, and the answer's at its end; its advantage is the
    sum of those from it on. Hu et al. 2025, arXiv:2501.03262.
    """

    kl_coef: NonNegative = 0.01
    """What a nat of distance from the model as it began costs, of the reward, token by token."""
    epsilon: Fraction = 0.2
    """How far one rollout may move a token's probability ratio from 1."""

    def before(self):
        return {"reference"} if self.kl_coef else set()

    def advantages(self, rolled):
        reward = rolled.spread(rolled.reward) * 0
        if self.kl_coef:
            reward = -self.kl_coef * (rolled.known["old"] - rolled.known["reference"])
        reward[rolled.last] += rolled.reward
        return {"advantage": whiten(to_come(reward, rolled))}

    def loss(self, batch, logp, old, advantage):
        ratio = (logp.token - old).exp()
        each = clipped(ratio, advantage, self.epsilon, self.epsilon)
        return over(each, clip_ratio=(ratio - 1).abs() > self.epsilon)


def to_come(reward, rolled):
    """[M] the sum of an answer's rewards from each token on."""
    until = reward.double().cumsum(0)  # of all answers: in fewer bits, equal rewards would not come out equal
    return (rolled.spread(until[rolled.last]) - until + reward).to(reward.dtype)
