"""Learn to score answers as people do."""

from __future__ import annotations

from typing import ClassVar, Literal

from ..config.record import NonNegative
from ._pairs import ahead, pairs
from .base import Objective, Targets, objective, over


@objective("reward")
class Reward(Objective):
    """A reward model: one number an answer, the better of two above the worse (Bradley and Terry 1952).

    It is saved as a sequence classifier with one label.
    """

    raters: Literal["margin", "soft", "weight", "ignore"] = "margin"
    """What becomes of what raters said of a pair: the better answer is to be above the worse by its margin, where it
    has one (Touvron et al. 2023, arXiv:2307.09288); the share of them who prefer it is the target (soft); a pair counts
    by how far that share is from a half (weight); or nothing."""
    center_rewards_coefficient: NonNegative = 0.0
    """How strongly the rewards of a pair are drawn to a sum of zero (Eisenstein et al. 2023, arXiv:2312.09244); 0.01 is
    usual."""

    targets: ClassVar[Targets] = "ranked"

    @property
    def needs(self):
        return ("agreement",) if self.raters in ("soft", "weight") else ()

    def outputs(self, labels):
        return ("reward",)

    def odds(self, batch, score):
        better, worse = pairs(score.squeeze(-1))
        return better - worse

    def loss(self, batch, score):
        from torch.nn.functional import logsigmoid

        better, worse = pairs(score.squeeze(-1))
        gap = better - worse
        margin = 0.0 if batch.margin is None else pairs(batch.margin)[0]
        share = gap.new_ones(len(gap)) if batch.agreement is None else pairs(batch.agreement)[0]
        loss, weight = -logsigmoid(gap - margin if self.raters == "margin" else gap), None
        if self.raters == "soft":
            loss = share * loss - (1 - share) * logsigmoid(-gap)
        elif self.raters == "weight":
            weight = (2 * share - 1).clamp(min=0)
        loss = loss + self.center_rewards_coefficient * (better + worse) ** 2
        return over(loss, weight, accuracy=ahead(gap), margins=gap)
