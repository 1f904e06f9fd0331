"""Learn from the better and the worse of the model's own answers."""

from __future__ import annotations

from ..config.record import Positive
from ._online import AtLeastTwo, Online, by_group
from ._pairs import ahead
from .base import objective, over


@objective("online_dpo")
class OnlineDPO(Online):
    """DPO on pairs that are made while it learns: of the answers to a prompt, the best and the worst by their rewards.

    Guo et al. 2024, arXiv:2402.04792.
    """

    num_generations: AtLeastTwo = 2
    """Answers that the model gives to each prompt; the best and the worst are a pair."""
    beta: Positive = 0.1
    """How strongly to stay near the reference."""

    def advantages(self, rolled):
        groups = by_group(rolled.reward, rolled.group)
        best, worst = groups.argmax(1, keepdim=True), groups.argmin(1, keepdim=True)
        role = groups.new_zeros(groups.shape).scatter(1, worst, -1.0).scatter(1, best, 1.0)
        role = role * (groups.amax(1, keepdim=True) > groups.amin(1, keepdim=True))  # of equals none is better
        return {"role": rolled.spread(role.flatten())}

    def loss(self, batch, logp, reference, role):
        from torch.nn.functional import logsigmoid

        side = logp.having(role).mean()
        gain = (logp - reference).sum()
        groups = (side * gain).view(-1, self.num_generations).sum(1)  # the best one's less the worst one's
        told = side.view(-1, self.num_generations).abs().sum(1) > 0
        values = -logsigmoid(self.beta * groups) * told
        return over(values, margins=self.beta * groups, accuracy=ahead(groups))
