"""Attention within groups of tokens, half of the heads with groups that begin half a group earlier.

Letters of shapes: R rows, T tokens that ask, S tokens that are seen (the last T of them ask), D width of a head.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from ..errors import RecipeError


def group_size(config: Any) -> int:
    """How many tokens see each other in training; 0 if all do."""
    return getattr(config, "shifted_group_size", None) or 0


def shifted(module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options):
    """LongLoRA's attention (Chen et al. 2023, arXiv:2309.12307); [R, heads, T, D] -> [R, T, heads, D].

    The first group of the shifted heads is half a group: the paper's code fills it with the sequence's end, which first
    tokens would then see.
    """
    causal = options.get("is_causal")
    if not (getattr(module, "is_causal", True) if causal is None else causal):
        raise RecipeError("model.attn: shifted is for models that read from left to right; take auto")
    size, copies = group_size(module.config), query.shape[1] // key.shape[1]
    key, value = (one.repeat_interleave(copies, 1) for one in (key, value))
    half = query.shape[1] // 2
    how = {"scale": options.get("scaling"), "dropout_p": options.get("dropout", 0.0)}
    heads = slice(None, half), slice(half, None)
    parts = [
        grouped([one[:, of] for one in (query, key, value)], mask, range(first, key.shape[2], size), how)
        for of, first in zip(heads, (size, size // 2), strict=True)
    ]
    return torch.cat(parts, 1).transpose(1, 2).contiguous(), None


def grouped(states: list[Tensor], mask: Tensor | None, edges: range, how: dict[str, Any]) -> Tensor:
    """[R, heads, T, D] attention within groups that end where `edges` say."""
    query, key, value = states
    seen, unasked = key.shape[2], key.shape[2] - query.shape[2]
    done = []
    for begin, end in pairwise([0, *edges, seen]):
        first = max(begin, unasked)
        if first < end:
            ask, see = slice(first - unasked, end - unasked), slice(begin, end)
            own = None if mask is None else mask[:, :, ask, see]
            own = visible(own, first - begin, end - begin, query.device) if first > begin or mask is not None else None
            own = {"attn_mask": own} if own is not None else {"is_causal": True}
            done.append(scaled_dot_product_attention(query[:, :, ask], key[:, :, see], value[:, :, see], **own, **how))
    return torch.cat(done, 2)


def visible(mask: Tensor | None, first: int, end: int, device: torch.device) -> Tensor:
    """What tokens from `first` on see of a group of `end`: what a mask says, or those before; and each itself.

    Without itself a token that only pads would see nothing, and its softmax be no number.
    """
    at = torch.arange(end, device=device)
    back = at[first:, None] - at
    if mask is None:
        return back >= 0
    return mask | (back == 0) if mask.dtype == torch.bool else mask.masked_fill(back == 0, 0.0)
