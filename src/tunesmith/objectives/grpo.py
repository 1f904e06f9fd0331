"""Learn from the answers that beat the others to the same prompt."""

from __future__ import annotations

from typing import Literal

from ..config.record import Fraction, NonNegative
from ._online import AtLeastTwo, Gaining, by_group, clipped, k3
from .base import Loss, Tally, objective


@objective("grpo")
class GRPO(Gaining):
    """Group relative policy optimisation: raise answers that beat the mean of their group, a small step at a time.

    Shao et al. 2024, arXiv:2402.03300; Dr. GRPO: Liu et al. 2025, arXiv:2503.20783; DAPO: Yu et al. 2025,
    arXiv:2503.14476; GSPO: Zheng et al. 2025, arXiv:2507.18071.
    """

    num_generations: AtLeastTwo = 8
    """Answers that the model gives to each prompt, which are compared with each other."""
    beta: NonNegative = 0.0
    """Weight of the pull towards the model as it began; 0 needs no reference."""
    loss_type: Literal["grpo", "dapo", "dr_grpo"] = "dapo"
    """What is averaged: every answer's mean over its tokens (grpo), all tokens alike (dapo), or the sum over an
    answer's tokens as a share of max_completion_length (dr_grpo)."""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """What a reward's distance from its group's mean is divided by: the group's deviation, that of all, or nothing."""
    epsilon: Fraction = 0.2
    """How far below 1 one rollout may move a token's probability ratio."""
    epsilon_high: float | None = None
    """How far above 1, where it is to be another distance; DAPO takes 0.28."""
    importance_sampling_level: Literal["token", "sequence"] = "token"
    """What has a ratio: each token, or the answer, by its mean over the tokens (GSPO)."""
    mask_truncated_completions: bool = False
    """Learn nothing from answers that did not come to an end."""

    def looks(self):
        return tuple(name for name in super().looks() if self.beta or name != "reference")

    def advantages(self, rolled):
        groups = by_group(rolled.reward.double(), rolled.group)  # else equal rewards may be apart by rounding
        gain = groups - groups.mean(1, keepdim=True)
        if self.scale_rewards == "group":
            gain = gain / (groups.std(1, keepdim=True) + 1e-4)
        if self.scale_rewards == "batch":
            gain = gain / (groups.std() + 1e-4)
        counts = rolled.ended.float() if self.mask_truncated_completions else rolled.reward.new_ones(len(rolled.reward))
        return {"advantage": rolled.spread(gain.flatten().to(counts.dtype)), "counts": rolled.spread(counts)}

    def loss(self, batch, logp, old, advantage, counts, reference=None):
        drift = logp.token - old
        if self.importance_sampling_level == "sequence":
            drift = logp.having(drift).mean()[logp.owner]
        ratio = drift.exp()
        high = self.epsilon if self.epsilon_high is None else self.epsilon_high
        each = clipped(ratio, advantage, self.epsilon, high)
        watched = {"clip_ratio": (ratio < 1 - self.epsilon) & (advantage < 0) | (ratio > 1 + high) & (advantage > 0)}
        if reference is not None:
            away = k3(logp.token, reference.token)
            each, watched["kl"] = each + self.beta * away, away
        return self.averaged(logp, each * counts, counts, watched)

    def averaged(self, logp, each, counts, watched) -> Loss:
        """The sum over tokens and what it is divided by, once all of a step is there."""
        metrics = {name: Tally(one.detach().float().sum(), one.numel()) for name, one in watched.items()}
        if self.loss_type == "dapo":
            return Loss(each.sum(), counts.sum(), metrics)
        answers = logp.answers  # one that is masked counts as well, as in TRL: it adds nothing
        if self.loss_type == "grpo":
            return Loss(logp.having(each).mean().sum(), answers, metrics)
        return Loss(each.sum() / self.max_completion_length, answers, metrics)
