"""What a model remembers of rows: put beside each other, cut down, kept for prompts that begin alike."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from ..model.engine import Engine, Ids, Prefilled

WORTHWHILE = 16
"""A beginning of fewer tokens is read again."""
SPARE = 32
"""Columns that are padding in every row are dropped when there are so many."""


def new_memory(engine: Engine) -> DynamicCache | None:
    """A memory of all that was read, whatever a model's window; None for a model that must have one of its own."""
    word = torch.tensor([[0]], device=engine.device)
    cache = engine.read(word, torch.zeros_like(word), logits_to_keep=1).past_key_values
    kinds = {type(layer) for layer in getattr(cache, "layers", [None])}
    return DynamicCache() if kinds <= {DynamicLayer, DynamicSlidingWindowLayer} else None


def plain(cache: Any) -> bool:
    """Whether rows of a memory can be moved."""
    return isinstance(cache, DynamicCache) and all(type(layer) is DynamicLayer for layer in cache.layers)


def repeated(read: Prefilled, size: int) -> Prefilled:
    """Each prompt that was read, as often as it has answers."""
    read.cache.batch_repeat_interleave(size)
    return Prefilled(read.cache, *(one.repeat_interleave(size, 0) for one in (read.attend, read.place, read.logits)))


def staying(read: Prefilled, stays: list[int]) -> Prefilled:
    """Those rows alone."""
    rows = torch.tensor(stays, device=read.place.device)
    read.cache.batch_select_indices(rows)
    return Prefilled(read.cache, read.attend[rows], read.place[rows], read.logits[rows])


def after(engine: Engine, read: Prefilled, tokens: list[int]) -> Prefilled:
    """What the model would say next, once each row has gone on by a token."""
    attend = torch.cat([read.attend, read.attend.new_ones(len(tokens), 1)], 1)
    ids = torch.tensor(tokens, device=engine.device)[:, None]
    out = engine.read(ids, read.place[:, None], attention_mask=attend, past_key_values=read.cache)
    return Prefilled(out.past_key_values, attend, read.place + 1, out.logits[:, -1].float())


def joined(one: Prefilled, other: Prefilled) -> Prefilled:
    """The rows of both, filled up on the left."""
    width = max(one.attend.shape[1], other.attend.shape[1])
    for here, there in zip(one.cache.layers, other.cache.layers, strict=True):
        here.keys = torch.cat([widened(here.keys, width), widened(there.keys, width)])
        here.values = torch.cat([widened(here.values, width), widened(there.values, width)])
    attend = [pad(read.attend, (width - read.attend.shape[1], 0)) for read in (one, other)]
    rest = [torch.cat(pair) for pair in ((one.place, other.place), (one.logits, other.logits))]
    return Prefilled(one.cache, torch.cat(attend), *rest)


def widened(states: Tensor, width: int) -> Tensor:
    return pad(states, (0, 0, width - states.shape[-2], 0))


def trimmed(read: Prefilled) -> Prefilled:
    """Without the columns that are padding in every row."""
    first = int(read.attend.any(0).int().argmax())
    if first < SPARE or not plain(read.cache):
        return read
    for layer in read.cache.layers:
        layer.keys, layer.values = layer.keys[..., first:, :].clone(), layer.values[..., first:, :].clone()
    return Prefilled(read.cache, read.attend[:, first:], read.place, read.logits)


def sliced(read: Prefilled, row: int, length: int) -> DynamicCache:
    """The memory of the first `length` tokens of one row, by itself."""
    first = int(read.attend[row].argmax())
    made = DynamicCache()
    for number, layer in enumerate(read.cache.layers):
        parts = (part[row : row + 1, :, first : first + length].clone() for part in (layer.keys, layer.values))
        made.update(*parts, number)
    return made


class Begun(NamedTuple):
    """What has been read of a prompt already."""

    ids: Ids
    cache: Any


class Kept:
    """Memories of rows that have ended, the latest `tokens` tokens of them."""

    def __init__(self, tokens: int) -> None:
        self.tokens, self.held = tokens, 0
        self.rows: OrderedDict[tuple[str, tuple[int, ...]], DynamicCache] = OrderedDict()

    def put(self, model: str, ids: Sequence[int], cache: DynamicCache) -> None:
        """Keep a row; one that it goes on from is let go of."""
        said = tuple(ids)
        for name, known in list(self.rows):
            if name == model and said[: len(known)] == known:
                self.drop((name, known))
        self.rows[model, said] = cache
        self.held += len(said)
        while self.held > self.tokens:
            self.drop(next(iter(self.rows)))

    def drop(self, key: tuple[str, tuple[int, ...]]) -> None:
        del self.rows[key]
        self.held -= len(key[1])

    def forget(self, model: str) -> None:
        """Let go of all that was read under one adapter."""
        for key in [key for key in self.rows if key[0] == model]:
            self.drop(key)

    def best(self, model: str, prompt: Ids) -> tuple[int, tuple[str, tuple[int, ...]] | None]:
        """How much of a prompt is kept, and in which row."""
        found = [(alike(prompt, key[1]), key) for key in self.rows if key[0] == model]
        return max(found, key=lambda one: one[0], default=(0, None))

    def begun(self, key: tuple[str, tuple[int, ...]], length: int) -> Begun:
        """The beginning of a kept row, which stays as it is."""
        self.rows.move_to_end(key)
        made = DynamicCache()
        for number, layer in enumerate(self.rows[key].layers):
            made.update(layer.keys[..., :length, :].clone(), layer.values[..., :length, :].clone(), number)
        return Begun(list(key[1][:length]), made)


def alike(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two rows begin with in common."""
    shorter = min(len(one), len(other))
    if tuple(one[:shorter]) == tuple(other[:shorter]):
        return shorter
    return next(at for at in range(shorter) if one[at] != other[at])
