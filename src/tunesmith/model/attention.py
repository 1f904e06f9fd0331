"""Attention within each sequence of a packed row: one call a sequence of what the model would have used anyway.

A packed row says the lengths of its sequences where the mask would stand, `[1, 1, 1, N]` of int64: transformers hands a
mask of four dimensions to the attention as it is, in a recomputation for gradient checkpointing too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from torch import Tensor

OURS = {"sdpa": "tunesmith_sdpa", "eager": "tunesmith_eager"}


def keep_apart(model) -> bool:
    """Give a transformers model attention that reads lengths; any other mask means what it did before.

    False where its attention asks nobody, looks at chunks of a row, or is of a kind that tells sequences apart by
    their positions itself, as FlashAttention does.
    """
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    from .load import quiet

    config = model.config
    usual = getattr(config, "_attn_implementation", None)
    if usual in OURS.values():
        return True
    if usual not in OURS or getattr(config.get_text_config(), "attention_chunk_size", None):
        return False
    name = OURS[usual]
    ALL_ATTENTION_FUNCTIONS.register(name, attend)
    ALL_MASK_ATTENTION_FUNCTIONS.register(name, ALL_MASK_ATTENTION_FUNCTIONS[usual])
    with quiet():
        model.set_attn_implementation(name)
    return config._attn_implementation == name


def as_before(model) -> None:
    """Give a model back the attention that it came with."""
    for usual, name in OURS.items():
        if model.config._attn_implementation == name:
            model.set_attn_implementation(usual)


def lengths(mask: Tensor | None) -> list[int] | None:
    """The lengths that stand where a mask would."""
    return mask.flatten().tolist() if mask is not None and mask.dtype == torch.int64 and mask.ndim == 4 else None


def attend(module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options):
    """[R, heads, T, D] each -> [R, T, heads, D], and weights if the usual attention gives any."""
    usual = usual_attention(module)
    apart = lengths(mask)
    if apart is None:
        return usual(module, query, key, value, mask, **options)
    causal = options.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    pieces = [tensor.split(apart, dim=2) for tensor in (query, key, value)]
    masks = [own_mask(module, piece, causal, options.get("sliding_window")) for piece in pieces[0]]
    kept: list[list[Tensor]] = []
    with keeping(kept):
        done = [usual(module, *piece, **options)[0] for piece in zip(*pieces, masks, strict=True)]
    return joined(done, kept), None


def keeping(slots: list[list[Tensor]]) -> torch.autograd.graph.saved_tensors_hooks:
    """Within it, each tensor kept for the backward pass is put in a slot, where another may take its place."""

    def pack(tensor: Tensor) -> list[Tensor]:
        slots.append([tensor])
        return slots[-1]

    return torch.autograd.graph.saved_tensors_hooks(pack, lambda slot: slot[0])


def joined(done: list[Tensor], kept: list[list[Tensor]]) -> Tensor:
    """[1, t, heads, D] of each sequence -> [1, T, heads, D]; where one was kept, its part of the whole is instead."""
    if len(done) == 1:
        return done[0]
    whole = torch.cat(done, dim=1)
    parts = whole.detach().split([piece.shape[1] for piece in done], dim=1)
    by_place = {piece.data_ptr(): part.transpose(1, 2) for piece, part in zip(done, parts, strict=True)}
    for slot in kept:
        part = by_place.get(slot[0].data_ptr())
        if part is not None and part.shape == slot[0].shape:
            slot[0] = part
    return whole


def usual_attention(module) -> Callable:
    """What the model's attention calls if nobody says otherwise."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    if module.config._attn_implementation == OURS["sdpa"]:
        return ALL_ATTENTION_FUNCTIONS["sdpa"]
    return sys.modules[type(module).__module__].eager_attention_forward


def own_mask(module, query: Tensor, causal: bool, window: int | None) -> Tensor | None:
    """[1, 1, t, t] what a sequence's tokens may look at; None where the usual attention knows without."""
    length = query.shape[2]
    eager = module.config._attn_implementation == OURS["eager"]
    if not (causal and eager) and (not window or length <= window):
        return None
    at = torch.arange(length, device=query.device)
    back = at[:, None] - at
    seen = (back >= 0) if causal else torch.ones_like(back, dtype=torch.bool)
    if window:
        seen &= back.abs() < window
    if not eager:
        return seen[None, None]
    return torch.zeros_like(back, dtype=query.dtype).masked_fill(~seen, torch.finfo(query.dtype).min)[None, None]
