"""Noise on the embeddings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def stirred(words: nn.Module, alpha: float, lengths: Tensor) -> Iterator[None]:
    """Within it, every token's embedding is moved by uniform noise (NEFTune, Jain et al. 2023, arXiv:2310.05914).

    The noise is within alpha / sqrt(L H), with L the length of the token's own sequence, [R, T] in `lengths`: packed or
    padded, a sequence is stirred as much as if it were alone.
    """

    def stir(module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
        most = alpha / (lengths * output.shape[-1]).sqrt().unsqueeze(-1)
        return output + (torch.rand_like(output) * 2 - 1) * most.to(output.dtype)

    hook = words.register_forward_hook(stir)
    try:
        yield
    finally:
        hook.remove()
