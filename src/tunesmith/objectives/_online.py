"""What objectives that learn from the model's own answers have in common: how it is asked, and what is made of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge

from ..config.choice import Choice
from ..config.record import Count, Fraction, Natural, Positive, Share, record
from ..samplers.base import Sampler, sampler
from ..samplers.own import Exact
from .base import Objective, Targets

if TYPE_CHECKING:
    from torch import Tensor


AtLeastTwo = Annotated[int, Ge(2)]
AnySampler = Annotated[Sampler, Choice(sampler, "exact")]


@dataclass
class Rolled:
    """Answers, how good they are, and what was made of their tokens before any of it was learnt from.

    N answers, those to one prompt side by side; M tokens in all of them.
    """

    reward: Tensor  # [N] float32
    lengths: Tensor  # [N] int64 tokens of each
    group: int
    """Answers to one prompt."""
    ended: Tensor  # [N] bool whether it came to an end by itself
    known: dict[str, Tensor] = field(default_factory=dict)
    """By name, [M] each: log-probabilities when it was `sampled`, of the trainer then (`old`), of the `reference`; what
    the critic expected (`value`)."""
    kl_coef: float = 0.0
    """How much the distance from the reference costs now."""

    def spread(self, values: Tensor) -> Tensor:
        """[N] -> [M] for every token what is its answer's."""
        return values.repeat_interleave(self.lengths)

    def total(self, values: Tensor) -> Tensor:
        """[M] -> [N] the sum over each answer's tokens."""
        owner = self.spread(values.new_zeros(len(self.lengths)).long() + self.numbers)
        return values.new_zeros(len(self.lengths)).index_add(0, owner, values)

    @property
    def numbers(self) -> Tensor:
        return self.lengths.new_ones(len(self.lengths)).cumsum(0) - 1

    @property
    def last(self) -> Tensor:
        """[N] where the last token of each stands among all."""
        return self.lengths.cumsum(0) - 1


@record
class Online(Objective):
    """Learns from answers that the model gives while it learns, by the rewards that they get (`rewards`)."""

    num_generations: Count = 8
    """Answers that the model gives to each prompt."""
    max_completion_length: Count = 128
    """Longest answer, in tokens."""
    temperature: Positive = 1.0
    """How evenly words are drawn; below 1 the likelier ones more often."""
    top_p: Share = 1.0
    """Draw from the likeliest words that come to this probability together."""
    top_k: Natural = 0
    """Draw from so many of the likeliest words; 0 from all."""
    min_p: Fraction = 0.0
    """Draw from words at least this likely, as a share of the likeliest one."""
    stop: tuple[str, ...] = ()
    """Texts that end an answer, beside the model's own stop token."""
    sampler: AnySampler = Exact()
    """What answers are drawn by: the weights that learn, these in 16 bits, or vLLM, which is given what was learnt; how
    far that is from the trainer is measured (sampler_mismatch) and corrected (importance_cap)."""
    num_iterations: Count = 1
    """Times that answers are learnt from before new ones are given."""
    num_mini_batches: Count = 1
    """Optimizer steps that each of these times is cut into."""

    targets: ClassVar[Targets] = "prompts"
    rewarded: ClassVar[bool] = True
    """Whether it learns from what rewards say of its answers; else it looks at `divergence` from a teacher alone."""

    @property
    def repeats(self) -> int:
        return self.num_iterations * self.num_mini_batches

    @property
    def side_by_side(self) -> int:
        return self.num_generations

    @property
    def critic_apart(self) -> bool:
        """Whether what `value` is read from is no part of the policy."""
        return False

    @property
    def at_once(self) -> bool:
        """Whether what the policy says of its answers as it learns from them is all that there is to know of it."""
        return False

    def before(self) -> set[str]:
        """What is asked of the policy before it learns from its answers, beside `old`: `value`, `reference`."""
        return {"value", "reference"} & set(self.looks())

    def advantages(self, rolled: Rolled) -> dict[str, Tensor]:
        """What `loss` looks at besides, [M] each: by how much each token was better than expected, for one."""
        raise NotImplementedError


@record
class Gaining(Online):
    """Moves tokens by an `advantage`: how much better they made things than was expected."""

    importance_cap: Positive = 2.0
    """How much a token counts at most for the sampler's having thought it less likely than the trainer does (truncated
    importance sampling)."""

    @property
    def at_once(self):
        return self.repeats == 1 and not self.before()


def by_group(reward: Tensor, group: int) -> Tensor:
    """[N] -> [N / group, group]"""
    return reward.view(-1, group)


def whiten(values: Tensor, shift: bool = True) -> Tensor:
    """Values at a deviation of 1, and with `shift` a mean of 0; those that rounding alone tells apart stay near it."""
    wide = values.double()
    made = (wide - wide.mean()) * (wide.var(correction=0) + 1e-8).rsqrt()
    return (made if shift else made + wide.mean()).to(values.dtype)


def k3(logp: Tensor, reference: Tensor) -> Tensor:
    """[M] an estimate of the distance from a reference that is never negative (Schulman 2020): e^d - d - 1."""
    drift = reference - logp
    return drift.exp() - drift - 1


def clipped(ratio: Tensor, gain: Tensor, low: float, high: float) -> Tensor:
    """[M] the loss of moving a token's ratio by more than this is that of having moved it so far (PPO)."""
    return -(ratio * gain).minimum(ratio.clamp(1 - low, 1 + high) * gain)
