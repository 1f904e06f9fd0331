"""A head beside the language model's, which tells what texts are from the same last states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

HEAD = "score"
"""As transformers calls a classifier's; a whole model that is saved loads as either, by its AutoModel classes."""


def put_beside(model: Any, outputs: tuple[str, ...], folder: Path) -> tuple[str, ...]:
    """Put a head with these outputs on a language model: the one that its folder has, else a new one, whose name
    is given."""
    import torch

    config = model.config.get_text_config()
    like = next(weight for weight in model.parameters() if weight.is_floating_point())
    head = torch.nn.Linear(config.hidden_size, len(outputs), bias=False, dtype=model.dtype, device=like.device)
    torch.nn.init.normal_(head.weight, std=getattr(config, "initializer_range", 0.02))
    setattr(model, HEAD, head)
    return () if read_head(head, folder) else (HEAD,)


def read_head(head: Any, folder: Path) -> bool:
    """Give it the weights that stand in a folder, if they do."""
    from safetensors import safe_open

    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            if f"{HEAD}.weight" in set(opened.keys()):
                there = opened.get_tensor(f"{HEAD}.weight")
                if there.shape == head.weight.shape:
                    head.weight.data.copy_(there)
                    return True
    return False
