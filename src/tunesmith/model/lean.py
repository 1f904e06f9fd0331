"""Norms and gates that keep less for the backward pass than the modules they stand in for, and compute the same.

A module is taken for a known one by its parts and then tried: it is exchanged only if both give the same outcome. What
they give is cheap to make a second time, so nobody need keep it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import silu


def make_lean(model: nn.Module) -> int:
    """Exchange what can be, in place; parameters keep their names. The number of modules exchanged."""
    found = [
        (parent, name, leaner(module))
        for parent in model.modules()
        for name, module in parent.named_children()
        if not isinstance(module, LeanNorm | LeanGate)
    ]
    done = [(parent, name, lean) for parent, name, lean in found if lean is not None]
    for parent, name, lean in done:
        setattr(parent, name, lean.train(parent.training))
    return len(done)


def leaner(module: nn.Module) -> nn.Module | None:
    """A lean module that gives what this one gives, if there is one."""
    eps: Any = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    parts = dict(module.named_children())
    weight = next(module.parameters(), torch.empty(0))
    if type(module).__name__.endswith("RMSNorm") and isinstance(eps, float) and not parts:
        lean, width, number = LeanNorm(weight, eps), weight.shape[-1], weight.dtype
    elif {"gate_proj", "up_proj", "down_proj"} <= set(parts) <= {"gate_proj", "up_proj", "down_proj", "act_fn"}:
        lean, width, number = LeanGate(parts), getattr(parts["gate_proj"], "in_features", 0), taken(parts["gate_proj"])
    else:
        return None
    if not number.is_floating_point or not width or len(list(module.parameters(recurse=False))) > 1:
        return None
    draw = torch.Generator(weight.device).manual_seed(0)
    x = torch.randn(2, 3, width, generator=draw, device=weight.device, dtype=torch.float32).to(number)
    training = module.training
    with torch.no_grad():
        try:
            expected, got = module.eval()(x), lean(x)
        finally:
            module.train(training)
    return lean if torch.allclose(expected, got, rtol=1e-5, atol=1e-6) else None


def taken(layer: Any) -> torch.dtype:
    """The number format that a linear layer takes, which is not that of its weights if these are quantised."""
    base: Any = getattr(layer, "base_layer", layer)
    weight = getattr(base, "weight", None)
    if isinstance(weight, Tensor) and weight.is_floating_point():
        return weight.dtype
    return getattr(base, "compute_dtype", None) or torch.float32


class Recipe(NamedTuple):
    """How a tensor that is still there was made."""

    made: weakref.ref
    make: Callable[[], Tensor]


RECIPES: dict[int, Recipe] = {}
"""By the tensor's storage."""


def remember(made: Tensor, make: Callable[[], Tensor]) -> Tensor:
    """`made`, of which `remaking` will keep how it is made; torch.compile decides by itself what to keep."""
    if made.requires_grad and not torch.compiler.is_compiling():
        at = made.untyped_storage()._cdata  # where it lies is nowhere, of a model without weights
        RECIPES[at] = Recipe(weakref.ref(made, lambda _: RECIPES.pop(at, None)), make)
    return made


def remaking() -> torch.autograd.graph.saved_tensors_hooks:
    """Within it, the backward pass makes a second time what is known how to make, instead of keeping it."""

    def pack(tensor: Tensor) -> Tensor | Callable[[], Tensor]:
        recipe = RECIPES.get(tensor.untyped_storage()._cdata)
        made = recipe and recipe.made()
        if recipe is None or made is None or made.numel() != tensor.numel() or not tensor.is_contiguous():
            return tensor
        shape = tensor.shape
        return lambda: recipe.make().view(shape)

    return torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept if isinstance(kept, Tensor) else kept())


class LeanNorm(nn.Module):
    """Root mean square normalisation (Zhang & Sennrich 2019, arXiv:1910.07467)."""

    def __init__(self, weight: Any, eps: float) -> None:
        super().__init__()
        self.weight, self.variance_epsilon = weight, eps

    def forward(self, x: Tensor) -> Tensor:
        made: Any = Normed.apply(x, self.weight, rate := self.rate(x))
        x, weight = x.detach(), self.weight.detach()
        return remember(made, lambda: normed(x, weight, rate))

    def rate(self, x: Tensor) -> Tensor:
        """[..., 1] what x is multiplied by."""
        with torch.no_grad():
            length = torch.linalg.vector_norm(exactly(x), dim=-1, keepdim=True)
            return length.square_().div_(x.shape[-1]).add_(self.variance_epsilon).rsqrt_()


def normed(x: Tensor, weight: Tensor, rate: Tensor) -> Tensor:
    made = (exactly(x) * rate).to(x.dtype)
    return made.mul_(weight) if made.dtype == weight.dtype else weight * made


class Normed(torch.autograd.Function):
    """`x * rate * weight`, x [..., H], where rate is 1 / sqrt(mean(x^2) + eps)."""

    @staticmethod
    def forward(ctx, x, weight, rate):
        ctx.save_for_backward(x, weight, rate)
        return normed(x, weight, rate)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight, rate = ctx.saved_tensors
        grad, exact = exactly(grads[0]), exactly(x)
        to_weight = None
        if ctx.needs_input_grad[1]:
            to_weight = (grad * exact).mul_(rate).flatten(0, -2).sum(0).to(weight.dtype)
        grad = grad * weight
        along = torch.linalg.vecdot(grad, exact).unsqueeze(-1).mul_(rate.square()).div_(-x.shape[-1])
        return grad.addcmul_(exact, along).mul_(rate).to(x.dtype), to_weight, None


def exactly(x: Tensor) -> Tensor:
    return x.float() if x.element_size() < 4 else x


class LeanGate(nn.Module):
    """A gated feed-forward layer (Shazeer 2020, arXiv:2002.05202) with SiLU."""

    def __init__(self, parts: dict[str, nn.Module]) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Tensor:
        parts: Any = self._modules
        gate, up = parts["gate_proj"](x), parts["up_proj"](x)
        product: Any = Gated.apply(gate, up)
        gate, up = gate.detach(), up.detach()
        return parts["down_proj"](remember(product, lambda: silu(gate).mul_(up)))


class Gated(torch.autograd.Function):
    """`silu(gate) * up`, of which only gate and up are kept."""

    @staticmethod
    def forward(ctx, gate, up):
        ctx.save_for_backward(gate, up)
        return silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        gate, up = ctx.saved_tensors
        to_gate = torch.ops.aten.silu_backward(grads[0] * up, gate)
        return to_gate, silu(gate).mul_(grads[0])
