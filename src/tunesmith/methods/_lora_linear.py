"""PEFT's own LoRA layer with a forward and backward that keep nothing but its input and a product of rank r."""

from __future__ import annotations

from typing import Any, cast

import torch
from peft.tuners.lora.layer import Linear
from peft.tuners.lora.variants import DoraLinearVariant
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..machine import product


class LoRALinear(Linear):
    """The same weights, names and files as PEFT's layer; anything but one adapter in training goes its way."""

    fast = True

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if args or kwargs or not self.plain(x):
            return super().forward(x, *args, **kwargs)
        [name] = self.active_adapters
        base, dropout, scale = self.get_base_layer(), self.lora_dropout[name], self.scaling[name]
        dora = name in self.lora_variant
        kept = 1 - dropout.p if isinstance(dropout, nn.Dropout) and self.training else 1.0
        keep = torch.empty_like(x, dtype=torch.bool).bernoulli_(kept) if kept < 1 else None
        weight, a, b = [cast(Tensor, part.weight) for part in (base, self.lora_A[name], self.lora_B[name])]
        made: Any = Update.apply(x, weight, None if dora else base.bias, a, b, scale, keep, kept)
        if not dora:
            return made
        magnitude = cast(Tensor, self.lora_magnitude_vector[name].weight)
        made = made * (magnitude / lengths(weight, a, b, scale)).to(made.dtype)
        return made if base.bias is None else made + base.bias

    def plain(self, x: Tensor) -> bool:
        """Whether this is one adapter over a frozen layer of real numbers, all of the same type; an adapter in 32 bits
        may be over one in 16."""
        if not self.fast or self.disable_adapters or self.merged or torch.is_autocast_enabled("cpu"):
            return False
        if len(self.active_adapters) != 1 or torch.is_autocast_enabled("cuda"):
            return False
        [name] = self.active_adapters
        base = self.get_base_layer()
        rounds = x.element_size() < 4  # then who asks without learning is to hear what is learnt from
        return (
            name in self.lora_A
            and (rounds or torch.is_grad_enabled())
            and self.known(name)
            and type(base) is nn.Linear
            and not base.weight.requires_grad
            and not (base.bias is not None and base.bias.requires_grad)
            and self.lora_A[name].bias is None
            and self.lora_B[name].bias is None
            and x.dtype == base.weight.dtype
            and self.lora_A[name].weight.dtype in (x.dtype, torch.float32)
        )

    def known(self, name: str) -> bool:
        """Whether it is no variant, or DoRA without dropout, which would drop inputs of the base layer too."""
        variant = self.lora_variant.get(name)
        still = isinstance(self.lora_dropout[name], nn.Identity) or not self.training
        return variant is None or (type(variant) is DoraLinearVariant and still)


@torch.no_grad()
def lengths(weight: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """[O] how long each row of `W + scale B A` is, whose sum is never made: W [O, I], A [r, I], B [O, r]. It takes no
    part in the gradient (Liu et al. 2024, arXiv:2402.09353, section 4.3)."""
    weight, a, b = weight.float(), a.float(), b.float()
    across = (product(weight, a.T) * b).sum(1)
    grown = (b @ (a @ a.T) * b).sum(1)
    return (weight.square().sum(1) + 2 * scale * across + scale**2 * grown).clamp(min=0).sqrt()


class Update(torch.autograd.Function):
    """`x W^T + bias + scale (x' A^T) B^T`, where x' is x with what `keep` does not keep dropped.

    x [..., I], W [O, I], A [r, I], B [O, r]; keep [..., I] bool or None, of which a share of `kept` is true. Where x
    has 16 bits, A and B are rounded to these, as autocast does it; their gradients are of their own kind.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, a, b, scale, keep, kept):  # noqa: PLR0913 - autograd takes tensors one by one
        rows, ctx.exact = x.reshape(-1, x.shape[-1]), a.dtype
        a, b = a.to(x.dtype), b.to(x.dtype)
        low = product(dropped(rows, keep, kept), a.T)  # [T, r]
        out = product(rows, weight.T).addmm_(low, b.T, alpha=scale)
        if bias is not None:
            out += bias
        ctx.save_for_backward(x, weight, a, b, low, keep)
        ctx.scale, ctx.kept = scale, kept
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight, a, b, low, keep = ctx.saved_tensors
        out = grads[0].reshape(-1, grads[0].shape[-1])
        down = product(out, b).mul_(ctx.scale)  # [T, r]
        rows = dropped(x.reshape(-1, x.shape[-1]), keep, ctx.kept)
        to_a = product(down.T, rows).to(ctx.exact) if ctx.needs_input_grad[3] else None
        to_b = product(low.T, out).to(ctx.exact).mul_(ctx.scale).T if ctx.needs_input_grad[4] else None
        to_x = None
        if ctx.needs_input_grad[0]:
            to_x = product(out, weight)
            if keep is None:
                to_x.addmm_(down, a)
            else:
                to_x += dropped(product(down, a), keep, ctx.kept)
            to_x = to_x.view_as(x)
        return to_x, None, None, to_a, to_b, None, None, None


def dropped(rows: Tensor, keep: Tensor | None, kept: float) -> Tensor:
    return rows if keep is None else (rows * keep.view_as(rows)).div_(kept)
