"""What objectives that compare two answers to one prompt have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from .base import Objective, Targets

if TYPE_CHECKING:
    from torch import Tensor


class Pairs(Objective):
    """Of two answers to one prompt, the first is the better."""

    targets: ClassVar[Targets] = "pairs"


def pairs(values: Tensor) -> tuple[Tensor, Tensor]:
    """[N] better, worse, better, worse, ... -> [N / 2] the better ones, and [N / 2] the worse."""
    better, worse = values.view(-1, 2).unbind(1)
    return better, worse


def watched(beta: float, gain: Tensor, logp: Tensor) -> dict[str, Tensor]:
    """The figures that people look at, under their usual names: rewards are beta times how much likelier than the
    reference an answer is."""
    better, worse = pairs(beta * gain)
    chosen, rejected = pairs(logp)
    return {
        "accuracy": better > worse,
        "rewards/chosen": better,
        "rewards/rejected": worse,
        "rewards/margins": better - worse,
        "logps/chosen": chosen,
        "logps/rejected": rejected,
    }
