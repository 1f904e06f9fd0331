"""Layers whose weights learn: a step's parts add up their gradients in place, with no second tensor of that size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..machine import product
from ..methods.base import plain

ADDING: ContextVar[bool] = ContextVar("adding", default=False)


@contextmanager
def adding_up() -> Iterator[None]:
    """Within it, a backward pass adds to gradients that are there already by itself, and autograd hears of none."""
    token = ADDING.set(True)
    try:
        yield
    finally:
        ADDING.reset(token)


def place_for(weight: Tensor) -> Tensor | None:
    """Where a weight's gradient is to be added up, unless autograd is to have it."""
    return weight.grad if ADDING.get() else None


def make_learning(model: nn.Module) -> None:
    """Let a model's plain layers add up their own gradients. Weights, names and what they compute stay."""
    head = getattr(model, "get_output_embeddings", lambda: None)()
    for module in model.modules():
        if plain(module) and module is not head:
            module.__class__ = LearningLinear
        elif type(module) is nn.Embedding and module.max_norm is None and not module.scale_grad_by_freq:
            module.__class__ = LearningEmbedding


class LearningLinear(nn.Linear):
    """`nn.Linear`."""

    def forward(self, input: Tensor) -> Tensor:
        device = input.device.type
        cast = device != "meta" and torch.is_autocast_enabled(device)  # which knows nothing of a model without weights
        if not torch.is_grad_enabled() or cast or input.dtype != self.weight.dtype:
            return super().forward(input)
        made: Any = Linear.apply(input, self.weight, self.bias)
        return made


class Linear(torch.autograd.Function):
    """`x W^T + bias`; x [..., I], W [O, I]."""

    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x)
        ctx.weight = weight  # itself, with its gradient: hooks on what is saved are given a copy
        out = product(x.reshape(-1, x.shape[-1]), weight.T)
        if bias is not None:
            out += bias
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        [x], weight = ctx.saved_tensors, ctx.weight
        by_x, by_weight, by_bias = ctx.needs_input_grad
        rows, out = x.reshape(-1, x.shape[-1]), grads[0].reshape(-1, grads[0].shape[-1])
        to_x = product(out, weight).view_as(x) if by_x else None
        to_weight = None
        if by_weight and (there := place_for(weight)) is not None:
            there.addmm_(out.T, rows)
        elif by_weight:
            to_weight = out.T @ rows
        return to_x, to_weight, out.sum(0) if by_bias else None


class LearningEmbedding(nn.Embedding):
    """`nn.Embedding`, of which no token is left out of the gradient, that for padding neither."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.weight.requires_grad:
            return super().forward(input)
        made: Any = Lookup.apply(input, self.weight, self.sparse)
        return made


class Lookup(torch.autograd.Function):
    """The rows [..., H] of W [V, H] at ids [...]. A sparse gradient is one of the rows that were looked up alone."""

    @staticmethod
    def forward(ctx, ids, weight, sparse):
        ctx.save_for_backward(ids)
        ctx.weight, ctx.sparse = weight, sparse
        return nn.functional.embedding(ids, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        [ids], weight = ctx.saved_tensors, ctx.weight
        there = place_for(weight)
        if there is not None:
            there.index_add_(0, ids.flatten(), grads[0].flatten(0, -2))
            return None, None, None
        return None, torch.ops.aten.embedding_backward(grads[0], ids, len(weight), -1, False, ctx.sparse), None
