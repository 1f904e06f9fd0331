"""What a model remembers of rows, kept for prompts that begin as they do."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from ..machine import memory
from ..model.engine import Engine, Ids, reading
from ..model.going import Each, Going, Together

WORTHWHILE = 16
"""A beginning of fewer tokens is read again."""


def new_memory(engine: Engine) -> tuple[DynamicCache | None, bool]:
    """A memory of all that was read, or None for a model that must have one of its own; and whether tokens that pad may
    stand between others, as they may not where a window counts them."""
    kinds = {type(layer) for layer in getattr(first_word(engine), "layers", [None])}
    return (DynamicCache() if kinds <= {DynamicLayer, DynamicSlidingWindowLayer} else None), kinds == {DynamicLayer}


def first_word(engine: Engine) -> Any:
    """What a model remembers of a single word."""
    word = torch.tensor([[0]], device=engine.device)
    return engine.read(word, torch.zeros_like(word), logits_to_keep=1).past_key_values


def affordable(engine: Engine) -> int:
    """Tokens that half of the free memory has room for; the other half is for what moves when rows come and go."""
    with reading(engine.model):
        layers = getattr(first_word(engine), "layers", [])
    held = [one for layer in layers for one in (getattr(layer, "keys", None), getattr(layer, "values", None))]
    each = sum(one.nbytes // one.shape[-2] for one in held if isinstance(one, Tensor) and one.numel())
    free = torch.cuda.mem_get_info()[0] if engine.device.type == "cuda" else memory().free
    return free // 2 // max(1, each)


def remembered(going: Going, at: int, length: int) -> DynamicCache | None:
    """What is remembered of the first tokens of one row, by itself; None where that cannot be told apart."""
    if isinstance(going, Together):
        return made_of(going.memory.of_row(at), length)
    parts = going.parts if isinstance(going, Each) else []
    layers: list[Any] = parts[0].cache.layers if len(parts) == 1 and type(parts[0].cache) is DynamicCache else []
    if not layers or any(type(layer) is not DynamicLayer for layer in layers):
        return None
    first = int(parts[0].attend[at].argmax())
    return made_of([[one[at : at + 1, :, first:] for one in (layer.keys, layer.values)] for layer in layers], length)


def made_of(layers: Sequence[Sequence[Tensor]], length: int) -> DynamicCache:
    """A memory of the first tokens of these keys and values, of its own."""
    made = DynamicCache()
    for number, (keys, values) in enumerate(layers):
        made.update(keys[..., :length, :].clone(), values[..., :length, :].clone(), number)
    return made


class Begun(NamedTuple):
    """What has been read of a prompt already."""

    ids: Ids
    cache: Any


class Kept:
    """Memories of rows that have ended, the latest `tokens` tokens of them."""

    def __init__(self, tokens: int) -> None:
        self.tokens, self.held = tokens, 0
        self.rows: OrderedDict[tuple[str, tuple[int, ...]], Any] = OrderedDict()

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
        return Begun(list(key[1][:length]), made_of([(one.keys, one.values) for one in self.rows[key].layers], length))


def alike(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two rows begin with in common."""
    shorter = min(len(one), len(other))
    if tuple(one[:shorter]) == tuple(other[:shorter]):
        return shorter
    return next(at for at in range(shorter) if one[at] != other[at])
