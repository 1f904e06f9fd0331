"""Weights that wait elsewhere until they are used: on the disk, or in main memory beside a GPU.

On a CPU a model's file is mapped: the system itself takes back pages of weights that it has no room for. Here it need
not, at the price of reading them each time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from ..cache import cache
from ..errors import RecipeError
from ..methods.base import largest_list, plain
from .offload import File, Memory, Slot
from .policy import Policy
from .rounding import same

GB = 1e9


def place(model, most: float | None, device: torch.device, say: Callable[[str], None]):
    """A model on its device, with at most so many gigabytes of its weights; those of its first blocks go away first."""
    if most is None:
        return model.to(device)
    said = Policy(model).sample()
    names = put_away(model, most, Memory() if device.type != "cpu" else File(cache()))
    for one in [*model.parameters(), *model.buffers()]:
        if one.device.type != "meta":
            one.data = one.data.to(device, copy=True)  # out of the mapped file, whose pages would stay
    if names:
        check(model, said)
        say(f"weights: {len(names)} layers wait {'on the disk' if device.type == 'cpu' else 'in main memory'}")
    return model


def put_away(model, most: float, store: File | Memory) -> list[str]:
    """Put weights away, block by block, until the others are at most so many gigabytes; the names of their layers."""
    over = sum(weight.nbytes for weight in model.parameters()) - most * GB
    layers = list(frozen(model))
    sums = [0, *accumulate(layer.weight.nbytes for _, layer in layers)]
    if over > sums[-1]:
        raise RecipeError(
            f"model.max_memory: {most:g} GB are less than the {most + (over - sums[-1]) / GB:.3g} GB that must stay:"
            " embeddings, norms, what learns, and weights in few bits"
        )
    count = next(at for at, size in enumerate(sums) if size >= over)
    for _, layer in layers[:count]:
        layer.slot = store.put(layer.weight.detach())
        layer.weight = nn.Parameter(layer.weight.to("meta"), requires_grad=False)
        layer.__class__ = Away
    return [name for name, _ in layers[:count]]


def frozen(model) -> Iterator[tuple[str, Any]]:
    """The plain linear layers of a model's blocks whose weights do not learn, from the first block on."""
    for name, layer in largest_list(model).named_modules():
        if plain(layer) and not layer.weight.requires_grad:
            yield name, layer


def check(model, said: Tensor) -> None:
    """Refuse a method that looks at weights themselves, and not at what their layers give."""
    try:
        fits = same(Policy(model).sample().cpu(), said.cpu())
    except (NotImplementedError, RuntimeError):  # a tensor without numbers
        fits = False
    if not fits:
        raise RecipeError(
            "model.max_memory: this method looks at weights themselves, which must be there; leave it out, or take lora"
        )


class Away(nn.Linear):
    """`nn.Linear` that fetches its weight for each use, forward and backward, and keeps nothing of it."""

    slot: Slot

    def forward(self, input: Tensor) -> Tensor:
        made: Any = Fetched.apply(input, self.bias, self.slot)
        return made


class Fetched(torch.autograd.Function):
    """`x W^T + bias`; x [..., I], W [O, I] from its slot."""

    @staticmethod
    def forward(ctx, x, bias, slot):
        ctx.slot = slot
        return linear(x, slot.fetch().to(x.device), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        to_bias = grads[0].flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None
        return grads[0] @ ctx.slot.fetch().to(grads[0].device), to_bias, None
