"""An update that begins at what quantisation has lost (Li et al. 2023, arXiv:2310.08659).

One round of the paper's: the quantised weights stay those that any other run has, so that the adapter loads over them.
PEFT's own asks for a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from peft.utils.integrations import dequantize_module_weight
from torch import Tensor


def begin_at_loss(tuned, whole: Callable[[str], Tensor]) -> None:
    """Set every update to the nearest of its rank to what its layer has lost; `whole` gives weights by their path."""
    for path, layer in tuned.get_base_model().named_modules():
        if isinstance(layer, LoraLayer):
            make_up(layer, whole(path))


@torch.no_grad()
def make_up(layer: Any, exact: Tensor) -> None:
    held = dequantize_module_weight(layer.get_base_layer()).float()
    for name in layer.active_adapters:
        a, b, scale = layer.lora_A[name].weight, layer.lora_B[name].weight, layer.scaling[name]
        left, values, right = torch.linalg.svd(exact.to(held) - held, full_matrices=False)
        root = (values[: len(a)] / scale).sqrt()
        b.copy_(left[:, : len(a)] * root)
        a.copy_(root[:, None] * right[: len(a)])
