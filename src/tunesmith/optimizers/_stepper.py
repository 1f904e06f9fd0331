"""What optimizers of our own have in common: a weight at a time, in float32, decayed apart from its gradient."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

State = dict[str, Any]


class Stepper(Optimizer):
    """Changes each weight that has a gradient by what `update` says, times the learning rate."""

    @torch.no_grad()
    def step(self, closure=None) -> Any:
        """Take a step; `closure` is there for torch's sake."""
        assert closure is None
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self.change(weight, group)

    def change(self, weight: Tensor, group: State) -> None:
        gradient = weight.grad
        assert gradient is not None
        gradient = (gradient.to_dense() if gradient.is_sparse else gradient).float()
        move = self.update(gradient, self.state[weight], group)
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.add_(move.to(weight.dtype), alpha=-group["lr"])

    def update(self, gradient: Tensor, state: State, group: State) -> Tensor:
        """What is subtracted from a weight, but for the learning rate. The gradient is not to be changed."""
        raise NotImplementedError


def seed(weight: Tensor, group: State) -> int:
    """A number that is a weight's own, by its name and the run's seed, which stand in its group."""
    at = next(at for at, one in enumerate(group["params"]) if one is weight)
    name = f"{group['seed']} {group['names'][at]}"
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)


def count(state: State) -> int:
    """How many steps a weight has taken, this one counted."""
    if "step" not in state:
        state["step"] = torch.zeros(())
    return int(state["step"].add_(1))


def adam(gradient: Tensor, state: State, group: State) -> Tensor:
    """Adam's direction (Kingma and Ba 2014, arXiv:1412.6980), which `corrected` is to be applied to."""
    if "exp_avg" not in state:
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(gradient), torch.zeros_like(gradient)
    beta1, beta2 = group["betas"]
    mean = state["exp_avg"].mul_(beta1).add_(gradient, alpha=1 - beta1)
    squares = state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    return mean / squares.sqrt().add_(group["eps"])


def corrected(direction: Tensor, group: State, step: int) -> Tensor:
    """Adam's direction, made up for means that began at zero."""
    beta1, beta2 = group["betas"]
    return direction * (math.sqrt(1 - beta2**step) / (1 - beta1**step))
