"""Learn from answers by how much they beat the mean of the others to the same prompt."""

from __future__ import annotations

from ..config.record import NonNegative
from ._online import AtLeastTwo, Gaining, by_group, whiten
from .base import objective, over


@objective("rloo")
class RLOO(Gaining):
    """REINFORCE, leave one out: an answer's baseline is the mean reward of the others to its prompt.

    An answer is one action: its reward, less `kl_coef` times how far it is from the reference, moves the probability of
    the whole of it. Ahmadian et al. 2024, arXiv:2402.14740.
    """

    num_generations: AtLeastTwo = 4
    """Answers that the model gives to each prompt, which are compared with each other."""
    kl_coef: NonNegative = 0.05
    """What a nat of distance from the model as it began costs, of the reward."""
    normalize_advantages: bool = False
    """Bring the advantages of a rollout to a mean of 0 and a deviation of 1."""

    def before(self):
        return {"reference"} if self.kl_coef else set()

    def advantages(self, rolled):
        reward = rolled.reward
        if self.kl_coef:
            reward = reward - self.kl_coef * rolled.total(rolled.known["old"] - rolled.known["reference"])
        groups = by_group(reward.double(), rolled.group)  # else equal rewards may be apart by rounding, and whitened
        others = (groups.sum(1, keepdim=True) - groups) / max(1, rolled.group - 1)
        gain = (groups - others).flatten()
        gain = whiten(gain) if self.normalize_advantages else gain
        return {"advantage": rolled.spread(gain.to(reward.dtype))}

    def loss(self, batch, logp, old, advantage):
        ratio = logp.having(logp.token - old).sum().exp()  # of whole answers
        return over(-ratio * logp.having(advantage).mean(), ratio=ratio)
