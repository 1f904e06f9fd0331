"""Norms and gates that keep less for the backward pass than the modules they stand in for, and compute the same.

A module is taken for a known one by its parts and then tried: it is exchanged only if both give the same outcome.
"""

from __future__ import annotations

from typing import Any

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
        lean = LeanNorm(weight, eps)
    elif {"gate_proj", "up_proj", "down_proj"} <= set(parts) <= {"gate_proj", "up_proj", "down_proj", "act_fn"}:
        lean, weight = LeanGate(parts), getattr(parts["gate_proj"], "weight", weight)
    else:
        return None
    if not weight.is_floating_point() or len(list(module.parameters(recurse=False))) > 1:
        return None
    draw = torch.Generator(weight.device).manual_seed(0)
    x = torch.randn(2, 3, weight.shape[-1], generator=draw, device=weight.device, dtype=torch.float32).to(weight.dtype)
    training = module.training
    with torch.no_grad():
        try:
            expected, got = module.eval()(x), lean(x)
        finally:
            module.train(training)
    return lean if torch.allclose(expected, got, rtol=1e-5, atol=1e-6) else None


class LeanNorm(nn.Module):
    """Root mean square normalisation (Zhang & Sennrich 2019, arXiv:1910.07467)."""

    def __init__(self, weight: Any, eps: float) -> None:
        super().__init__()
        self.weight, self.variance_epsilon = weight, eps

    def forward(self, x: Tensor) -> Tensor:
        made: Any = Normed.apply(x, self.weight, self.variance_epsilon)
        return made


class Normed(torch.autograd.Function):
    """`x / sqrt(mean(x^2) + eps) * weight`, x [..., H], computed in float32."""

    @staticmethod
    def forward(ctx, x, weight, eps):
        exact = exactly(x)
        rate = torch.linalg.vector_norm(exact, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, rate)
        return (
            (exact * rate).to(x.dtype).mul_(weight) if x.dtype == weight.dtype else weight * (exact * rate).to(x.dtype)
        )

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
        with made_again(product, gate.detach(), up.detach()):
            return parts["down_proj"](product)


def made_again(product: Tensor, gate: Tensor, up: Tensor):
    """Within it, whoever keeps the product for the backward pass keeps nothing: it is made a second time."""

    def pack(tensor: Tensor) -> Tensor | torch.Size:
        mine = tensor.data_ptr() == product.data_ptr() and tensor.numel() == product.numel() and tensor.is_contiguous()
        return tensor.shape if mine else tensor

    def unpack(kept: Tensor | torch.Size) -> Tensor:
        return kept if isinstance(kept, Tensor) else silu(gate).mul_(up).view(kept)

    return torch.autograd.graph.saved_tensors_hooks(pack, unpack)


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
