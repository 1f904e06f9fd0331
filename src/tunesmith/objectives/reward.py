"""Learn to score answers as people do."""

from ._pairs import Pairs, pairs
from .base import objective, over


@objective("reward")
class Reward(Pairs):
    """A reward model: one number an answer, the better of two above the worse (Bradley and Terry 1952)."""

    def outputs(self, labels):
        return ("reward",)

    def loss(self, batch, score):
        from torch.nn.functional import logsigmoid

        better, worse = pairs(score.squeeze(-1))
        return over(-logsigmoid(better - worse), accuracy=better > worse, margins=better - worse)
