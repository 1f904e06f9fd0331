"""Learn from answers with a critic: by how much better each token made things than was expected."""

from __future__ import annotations

from typing import Literal

from ..config.record import Count, Fraction, NonNegative, Positive
from ..errors import RecipeError
from ._online import Gaining, clipped, whiten
from .base import Loss, Tally, objective


@objective("ppo")
class PPO(Gaining):
    """Proximal policy optimisation with a critic: a value head over the model's own trunk, or over a second one.

    Schulman et al. 2017, arXiv:1707.06347; generalised advantages: arXiv:1506.02438; of language models: Ouyang et al.
    2022, arXiv:2203.02155.
    """

    num_generations: Count = 1
    """Answers that the model gives to each prompt."""
    num_iterations: Count = 4
    """Times that answers are learnt from before new ones are given."""
    kl_coef: NonNegative = 0.05
    """What a nat of distance from the model as it began costs, of the reward, token by token."""
    kl_target: Positive | None = None
    """Change kl_coef so that an answer's distance comes to this many nats (Ziegler et al. 2019, arXiv:1909.08593)."""
    kl_horizon: Positive = 10_000.0
    """Answers over which that change takes effect."""
    gamma: Fraction = 1.0
    """How much a reward one token later counts."""
    lam: Fraction = 0.95
    """How far ahead advantages look beyond what the critic expects."""
    cliprange: Fraction = 0.2
    """How far one rollout may move a token's probability ratio from 1."""
    cliprange_value: Positive = 0.2
    """How far one rollout may move what the critic expects."""
    critic: Literal["shared", "separate"] = "shared"
    """What the critic reads: the policy's own states, which then learn for both, or those of a trunk of its own, which
    begins as the policy's. It costs a second pass and, of an adapter, the memory of a second adapter; in full tuning
    that of a second model."""
    vf_coef: NonNegative = 0.1
    """Weight of the critic's loss."""
    whiten_rewards: bool = False
    """Bring the rewards of a rollout to a deviation of 1."""
    missing_eos_penalty: NonNegative = 0.0
    """What an answer loses that did not come to an end."""

    @property
    def critic_apart(self):
        return self.critic == "separate"

    def refuse(self):
        if self.kl_target is not None and not self.kl_coef:
            raise RecipeError(
                "objective.kl_target: changes kl_coef, and times 0 it stays 0; set kl_coef to what it begins at"
            )

    def before(self):
        return {"value"} | ({"reference"} if self.kl_coef else set())

    def advantages(self, rolled):
        import torch

        score = rolled.reward - self.missing_eos_penalty * (~rolled.ended).float()
        reward = rolled.spread(score) * 0
        if self.kl_coef:
            reward = -rolled.kl_coef * (rolled.known["old"] - rolled.known["reference"])
        reward[rolled.last] += score
        if self.whiten_rewards:
            reward = whiten(reward, shift=False)
        advantage = ahead(reward, rolled.known["value"], rolled.last, self.gamma, self.lam)
        expected = rolled.known["value"]
        return {"advantage": whiten(advantage), "came": torch.stack([expected, expected + advantage], -1)}

    def loss(self, batch, logp, value, old, advantage, came):
        ratio = (logp.token - old).exp()
        step = clipped(ratio, advantage, self.cliprange, self.cliprange)
        expected, returns = came.unbind(-1)
        near = expected + (value - expected).clamp(-self.cliprange_value, self.cliprange_value)
        critic = 0.5 * (value - returns).square().maximum((near - returns).square())
        tallies = {
            "policy_loss": step,
            "value_loss": critic,
            "clip_ratio": ((ratio - 1).abs() > self.cliprange).float(),
            "approx_kl": 0.5 * (logp.token - old).square(),
        }
        watched = {name: Tally(one.detach().sum(), one.numel()) for name, one in tallies.items()}
        return Loss((step + self.vf_coef * critic).sum(), step.numel(), watched)


def ahead(reward, value, last, gamma: float, lam: float):
    """[M] generalised advantages: of every token, what came of it beyond what the critic expected.

    A_t = d_t + gamma lam A_(t+1), with d_t = r_t + gamma V_(t+1) - V_t; nothing comes after an answer's last token.
    """
    ends = set(last.tolist())
    rewards, values, made = reward.tolist(), value.tolist(), [0.0] * len(reward)
    later = 0.0
    for at in reversed(range(len(rewards))):
        if at in ends:
            later, coming = 0.0, 0.0
        else:
            coming = values[at + 1]
        later = rewards[at] + gamma * coming - values[at] + gamma * lam * later
        made[at] = later
    return reward.new_tensor(made)
