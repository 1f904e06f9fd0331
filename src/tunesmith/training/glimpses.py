"""A few batches of training rows, for methods that begin at what the model makes of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..data.batch import Batch, Layout
from ..data.rendering.tokens import Tokens

AT_ONCE, MOST = 832, 256
"""Tokens in a batch, and batches."""


def glimpses(sequences: Sequence[Tokens], layout: Layout, seed: int, least: int) -> list[Batch]:
    """Batches of at least so many tokens, of rows drawn by the seed; a single smaller one if there are no more."""
    made, chosen, count = [], [], 0
    draw = torch.Generator().manual_seed(seed)
    for number in torch.randperm(len(sequences), generator=draw).tolist():
        chosen.append(sequences[number])
        count += len(chosen[-1].ids)
        if count < max(least, AT_ONCE):
            continue
        batch = layout(chosen)
        short = least - (batch.ids.numel() if batch.attend is None else batch.tokens)
        if short > 0:  # what all begin with stands in it once
            count -= short
            continue
        made.append(batch)
        chosen, count = [], 0
        if len(made) == MOST:
            break
    return made or [layout(chosen)]
