"""A model as it is quickest at writing: LoRA is part of the weights, and the head multiplies as wide matrices like it.

Asked for, products are with weights in half precision, which a few rows take half the time for: they wait for weights.
Afterwards every weight is the very tensor that it was before.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..methods.base import plain
from .learning import LearningLinear

MOST = 2 * 10**9
"""Bytes of weights that are held a second time at most."""
WIDE = 16384
"""Outputs from which on a layer is wide."""


@contextmanager
def swift(model, half: bool = False) -> Iterator[None]:
    """Within it the model writes quickly, and must not learn; with `half` by weights of 16 bits."""
    merged = [(layer, layer.get_base_layer().weight.data) for layer in mergeable(model)]
    kinds: list[tuple[Any, type]] = []
    try:
        for layer, _ in merged:
            layer.merge(safe_merge=True)  # which makes a new tensor
        for layer, kind in exchanged(model, half):
            kinds.append((layer, type(layer)))
            layer.__class__ = kind
        yield
    finally:
        for layer, kind in kinds:
            layer.__class__ = kind
            vars(layer).pop("packed", None)
        for layer, weight in merged:
            layer.merged_adapters.clear()
            layer.get_base_layer().weight.data = weight


def exchanged(model, half: bool) -> Iterator[tuple[Any, type]]:
    """Layers, and what they are meanwhile."""
    head: Any = getattr(model, "get_output_embeddings", lambda: None)()
    if half:
        yield from ((one, Half) for one in model.modules() if type(one) in (nn.Linear, LearningLinear) and settled(one))
    elif plain(head) and head.out_features >= WIDE and wider():
        yield head, Wide


def settled(layer: Any) -> bool:
    """Whether a layer's weight is there, in the precision that a half is made of."""
    weight = layer.weight
    there = type(weight) is nn.Parameter and weight.device.type == "cpu" and weight.dtype == torch.float32
    return there and not hasattr(layer, "_hf_hook")


def mergeable(model, blank: bool = False) -> list[Any]:
    """LoRA layers of the plain kind over plain weights, unless these are too many to be held twice; of a `blank` model
    those whose weights would be there."""
    from peft.tuners.lora import LoraLayer

    found: list[Any] = [layer for layer in model.modules() if isinstance(layer, LoraLayer) and simple(layer, blank)]
    size = sum(layer.get_base_layer().weight.nbytes for layer in found)
    return found if size <= MOST else []


def simple(layer: Any, blank: bool) -> bool:
    base, names = layer.get_base_layer(), layer.active_adapters
    return (
        plain(base)
        and (base.weight.device.type != "meta" or blank)
        and not (layer.disable_adapters or layer.merged or hasattr(base, "_hf_hook"))
        and all(name in layer.lora_A and name not in layer.lora_variant for name in names)
        and not any(layer.lora_bias.get(name) for name in names)
    )


def wider() -> bool:
    """Whether torch was built with oneDNN, which is up to twice as quick as MKL at a few rows by many columns."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def halves() -> bool:
    """Whether this machine has products with weights of 16 bits that are quicker than whole ones."""
    return "fbgemm" in torch.backends.quantized.supported_engines


class Half(nn.Linear):
    """`nn.Linear` with weights of 16 bits and sums of 32, by FBGEMM (Khudia et al. 2021, arXiv:2101.05615)."""

    packed: Any

    def forward(self, input: Tensor) -> Tensor:
        if "packed" not in vars(self):
            self.packed = torch.ops.quantized.linear_prepack_fp16(self.weight.detach(), self.bias)
        return torch.ops.quantized.linear_dynamic_fp16(input, self.packed)


class Wide(nn.Linear):
    """`nn.Linear` by oneDNN."""

    def forward(self, input: Tensor) -> Tensor:
        exact = input.dtype == self.weight.dtype == torch.float32 and input.device.type == "cpu"
        if not exact or torch.is_grad_enabled() or not input.numel():
            return super().forward(input)
        return torch.ops.mkldnn._linear_pointwise(input, self.weight, self.bias, "none", [], "")
