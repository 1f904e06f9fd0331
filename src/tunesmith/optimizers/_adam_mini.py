"""Adam-mini, written from the paper (arXiv:2406.16793), in plain torch."""

from __future__ import annotations

import math

import torch

from ._stepper import Stepper, count


class AdamMini(Stepper):
    """A group says how many `rows` of a weight share a mean of squares: 0 for all of them."""

    def update(self, gradient, state, group):
        step, (beta1, beta2) = count(state), group["betas"]
        rows = group["rows"] or len(gradient)
        parts = gradient.reshape(len(gradient) // rows, -1)  # [blocks, what belongs together]
        if "mean" not in state:
            state["mean"], state["squares"] = torch.zeros_like(gradient), gradient.new_zeros(len(parts))
        mean = state["mean"].lerp_(gradient, 1 - beta1)
        squares = state["squares"].mul_(beta2).add_(parts.square().mean(1), alpha=1 - beta2)
        root = squares.sqrt() / math.sqrt(1 - beta2**step) + group["eps"]
        return (mean.view_as(parts) / root[:, None]).view_as(gradient) / (1 - beta1**step)
