"""A model as it is quickest at writing: LoRA is part of the weights, and the head multiplies as wide matrices like it.

Afterwards every weight is the very tensor that it was before.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..methods.base import plain

MOST = 2 * 10**9
"""Bytes of weights that are held a second time at most."""
WIDE = 16384
"""Outputs from which on a layer is wide."""


@contextmanager
def swift(model) -> Iterator[None]:
    """Within it the model writes quickly, and must not learn."""
    merged = [(layer, layer.get_base_layer().weight.data) for layer in mergeable(model)]
    head = getattr(model, "get_output_embeddings", lambda: None)()
    wide = head is not None and plain(head) and head.out_features >= WIDE and wider()
    try:
        for layer, _ in merged:
            layer.merge(safe_merge=True)  # which makes a new tensor
        if wide:
            head.__class__ = Wide
        yield
    finally:
        for layer, weight in merged:
            layer.merged_adapters.clear()
            layer.get_base_layer().weight.data = weight
        if wide:
            head.__class__ = nn.Linear


def mergeable(model) -> list[Any]:
    """LoRA layers of the plain kind over plain weights, unless these are too many to be held twice."""
    from peft.tuners.lora import LoraLayer

    found = [layer for layer in model.modules() if isinstance(layer, LoraLayer) and simple(layer)]
    size = sum(layer.get_base_layer().weight.nbytes for layer in found)
    return found if size <= MOST else []


def simple(layer: Any) -> bool:
    base, names = layer.get_base_layer(), layer.active_adapters
    return (
        plain(base)
        and base.weight.device.type != "meta"
        and not (layer.disable_adapters or layer.merged or hasattr(base, "_hf_hook"))
        and all(name in layer.lora_A and name not in layer.lora_variant for name in names)
        and not any(layer.lora_bias.get(name) for name in names)
    )


def wider() -> bool:
    """Whether torch was built with oneDNN, which is up to twice as quick as MKL at a few rows by many columns."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


class Wide(nn.Linear):
    """`nn.Linear` by oneDNN."""

    def forward(self, input: Tensor) -> Tensor:
        exact = input.dtype == self.weight.dtype == torch.float32 and input.device.type == "cpu"
        if not exact or torch.is_grad_enabled() or not input.numel():
            return super().forward(input)
        return torch.ops.mkldnn._linear_pointwise(input, self.weight, self.bias, "none", [], "")
