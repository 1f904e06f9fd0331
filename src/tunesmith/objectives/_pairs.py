"""What objectives that compare two answers to one prompt have in common."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from .base import LogProbs, Objective, Targets

if TYPE_CHECKING:
    from torch import Tensor


class Pairs(Objective):
    """Of two answers to one prompt, the first is the better."""

    targets: ClassVar[Targets] = "pairs"


def pairs(values: Tensor) -> tuple[Tensor, Tensor]:
    """[N] better, worse, better, worse, ... -> [N / 2] the better ones, and [N / 2] the worse."""
    better, worse = values.view(-1, 2).unbind(1)
    return better, worse


def ahead(gap: Tensor) -> Tensor:
    """[N] by how much better answers are ahead of worse ones -> 1 where they are, one half where both are level; beside
    a reference all are, before anything is learnt."""
    return (gap > 0).float() + (gap == 0).float() / 2


def watched(reward: Tensor, logp: Tensor, entropy: Tensor | None) -> dict[str, Tensor]:
    """The figures that people look at, under their usual names: what the objective takes for an answer's reward, the
    log-probability of the whole answer, and the entropy at each of its tokens."""
    better, worse = pairs(reward)
    chosen, rejected = pairs(logp)
    return ({} if entropy is None else {"entropy": entropy}) | {
        "accuracy": ahead(better - worse),
        "rewards/chosen": better,
        "rewards/rejected": worse,
        "rewards/margins": better - worse,
        "logps/chosen": chosen,
        "logps/rejected": rejected,
    }


def level(logp: LogProbs, alpha: float) -> LogProbs:
    """The tokens by which an answer is longer than the other of its pair count `alpha` times.

    LD-DPO, Liu et al. 2024, arXiv:2409.06411.
    """
    lengths = logp.owner.bincount(minlength=logp.answers)
    shorter = lengths.view(-1, 2).amin(1).repeat_interleave(2)
    order = logp.owner.argsort(stable=True)  # an answer's tokens together, in their order
    begins = lengths.cumsum(0) - lengths
    place = order.argsort() - begins[logp.owner]
    return replace(logp, token=logp.token.where(place < shorter[logp.owner], alpha * logp.token))
