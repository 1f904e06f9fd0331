"""Quantised layers as ordinary ones, of the very weights that they compute with."""

from __future__ import annotations

from typing import Any

ROWS = 1024
"""Of an identity matrix, that are asked for at once."""


def solid(model: Any) -> Any:
    """A model in which no layer is quantised any more; one that has none is left as it is.

    What a layer makes of one-hot inputs are its weights, whatever library holds them and however. Those that compute
    with rounded inputs (LLM.int8) round 1 and 0 exactly.
    """
    import torch
    from torch.nn import Linear

    from ..methods.base import plain, sizes

    found = [path for path, layer in model.named_modules() if isinstance(layer, Linear) and not plain(layer)]
    found += [path for path, layer in model.named_modules() if hasattr(layer, "W_q")]  # HQQ's are no Linear
    for path in dict.fromkeys(found):
        layer = model.get_submodule(path)
        wide, narrow = sizes(layer)
        there = next(layer.parameters(), None)
        device = there.device if there is not None else "cpu"
        made = Linear(narrow, wide, bias=layer.bias is not None, device=device, dtype=torch.float32)
        with torch.no_grad():
            nothing = layer(torch.zeros(1, narrow, device=device)).float()
            for start in range(0, narrow, ROWS):
                rows = torch.eye(narrow, device=device)[start : start + ROWS]
                made.weight[:, start : start + ROWS] = (layer(rows).float() - nothing).T
            if layer.bias is not None:
                made.bias.copy_(nothing[0])
        model.set_submodule(path, made)
    if found:
        forget(model)
    return model


def forget(model: Any) -> None:
    """Take off a model what says that it is quantised, so that it is saved and merged as any other."""
    model.hf_quantizer = None
    for name in ("quantization_method", "is_quantized", "is_loaded_in_4bit", "is_loaded_in_8bit"):
        if name in vars(model):
            delattr(model, name)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
