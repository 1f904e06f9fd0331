"""What rows that are written together remember: each prompt once, however many go on from it, and their own tokens.

A model's cache grows by a copy of itself with each token, and holds a prompt as often as it has answers. Here a row's
own keys and values have a place that is written to, and attention to a prompt is one call for all of its rows. The two
are put together by the softmax's normalisers, as in `attention.Apart`. A row that is far longer than the others has its
tokens where a prompt would be, as all places have the same room. Letters of shapes: B rows, S places for rows, P
tokens of a prompt, T own tokens, G query heads to one of keys, D width of a head.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

BLOCK = 32
"""Tokens by which the room of each row grows."""
FAR, USUAL = 4, 256
"""A row of more than so many times the average and so many tokens has them apart: all others would get room for as
many."""
FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
Part = tuple[Tensor, Tensor]
"""What attention to some of the keys comes to, and the logarithm of its normaliser."""


class Unsuited(Exception):
    """This model's attention is more than queries, keys, values and a scale."""


@dataclass
class Group:
    """Rows side by side that go on from the same tokens; `keys` and `values` of each layer [1, heads, P, D]."""

    keys: list[Tensor]
    values: list[Tensor]
    count: int


def layers_of(cache: Any, length: int) -> list[Any]:
    """The layers of a cache that has nothing but keys and values, of so many tokens, in each."""
    layers: list[Any] = cache.layers if type(cache) is DynamicCache else []
    if not layers or not all(type(one) is DynamicLayer and one.get_seq_length() == length for one in layers):
        raise Unsuited(f"{type(cache).__name__} has more than keys and values of {length} tokens")
    return layers


def both(layers: Sequence[Any]) -> tuple[list[Tensor], list[Tensor]]:
    """Keys and values of each layer."""
    return [one.keys for one in layers], [one.values for one in layers]


class Memory(Cache):
    """Stands where a model expects its cache; the attention (`attention.attend`) asks it, not the other way round."""

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.groups: list[Group] = []
        self.places: list[int] = []  # of each row, where its own tokens are; always the first ones
        self.lengths: list[int] = []  # of each row, how many these are
        self.keys: list[Tensor] = []  # a layer, [S, heads, room, D]
        self.values: list[Tensor] = []
        self.room = 0, 0  # places that all layers have, and tokens that fit into each

    # what models ask of a cache

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *more: Any, **named: Any
    ) -> tuple[Tensor, Tensor]:
        """Nothing yet: what is new is kept where the attention sees it."""
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        before = max((group.keys[0].shape[2] for group in self.groups if group.keys), default=0)
        return before + max(self.lengths, default=0)

    # rows

    def join(self, cache: Any, attend: Tensor, size: int) -> None:
        """Let `size` rows go on from each of the prompts that a cache holds; [N, P] which tokens are a prompt's."""
        layers = layers_of(cache, attend.shape[1])
        prompts, first = attend.sum(-1).tolist(), len(self.places)
        self.make_room(layers)
        most = self.settle([length if size == 1 else 0 for length in prompts for _ in range(size)])
        groups, lengths = list[Group](), list[int]()  # of those that join, once all of them have room
        for number, there in enumerate(attend.bool()):
            keys, values = ([one[number : number + 1, :, there] for one in held] for held in both(layers))
            apart = size > 1 or prompts[number] > most
            groups.append(Group(keys, values, size) if apart else Group([], [], 1))
            lengths += [0] * size if apart else [prompts[number]]
            if not apart:  # then the prompt is a row's own
                for held, given in ((self.keys, keys), (self.values, values)):
                    for layer, one in enumerate(given):
                        held[layer][first + number, :, : prompts[number]] = one[0]
        self.groups += groups
        self.lengths += lengths
        self.places += range(first, first + len(lengths))

    def make_room(self, layers: Sequence[Any]) -> None:
        """Find out how large an entry is."""
        if not self.keys:
            self.keys, self.values = (
                [one.new_empty(0, one.shape[1], 0, one.shape[3]) for one in held] for held in both(layers)
            )

    def settle(self, more: Sequence[int] = ()) -> int:
        """Have room for rows of so many tokens beside those that are here; how many tokens a row may have here. Those
        that have more are set apart."""
        most = usual([*self.lengths, *more])
        for row, length in enumerate(self.lengths):
            if length > most:
                self.set_apart(row)
        self.reserve(len(more), max([*self.lengths, *(length for length in more if length <= most)], default=0))
        return most

    def set_apart(self, row: int) -> None:
        """Give a row a memory of its own, unless it shares its prompt with others."""
        group = self.group(row)
        if group.count == 1:
            made = [[one if group.keys else one.clone() for one in held] for held in self.of_row(row)]
            group.keys, group.values = map(list, zip(*made, strict=True))
            self.lengths[row] = 0

    def group(self, row: int) -> Group:
        return self.groups[bisect_right(list(accumulate(group.count for group in self.groups)), row)]

    def of_row(self, row: int) -> list[list[Tensor]]:
        """Keys and values of each layer: those that it shares or has apart, and the others."""
        group, place, own = self.group(row), self.places[row], self.lengths[row]
        made = []
        for layer, held in enumerate(zip(self.keys, self.values, strict=True)):
            parts = [one[place : place + 1, :, :own] for one in held]
            before = [group.keys[layer], group.values[layer]] if group.keys else []
            made.append([torch.cat(pair, 2) for pair in zip(before, parts, strict=True)] if before else parts)
        return made

    def reserve(self, more: int, longest: int) -> None:
        """Have places for so many more rows, each for so many tokens and some to come; give back what is too much."""
        rows, room = len(self.places) + more, longest + BLOCK
        (places, tokens), had = self.room, self.room
        if places * tokens <= 2 * rows * (room + USUAL):
            if rows <= places and longest < tokens:
                return
            rows, room = max(rows, places), max(room, tokens)
        self.room = min(rows, places), min(room, tokens)  # as long as not all layers are alike: memory may end half-way
        for held in (self.keys, self.values):
            for layer, old in enumerate(held):
                new = old.new_zeros(rows, old.shape[1], room, old.shape[3])
                new[: had[0], :, : had[1]] = old[:rows, :, :room][: had[0], :, : had[1]]
                held[layer] = new
        self.room = rows, room

    def keep(self, stays: Sequence[int]) -> None:
        """Forget all other rows; those that stand behind take the places of those that went."""
        count, start = len(stays), 0
        here = set(stays)
        for group in self.groups:
            old = range(start, start + group.count)
            group.count, start = len(here.intersection(old)), old.stop
        self.groups = [group for group in self.groups if group.count]
        self.lengths, self.places = [self.lengths[n] for n in stays], [self.places[n] for n in stays]
        free = sorted(set(range(count)) - set(self.places))
        moved = {place: free.pop() for place in self.places if place >= count}
        if moved:
            most = max(self.lengths)
            to, origin = (torch.tensor(list(ends), device=self.keys[0].device) for ends in (moved.values(), moved))
            for held in (*self.keys, *self.values):
                held[to, :, :most] = held[origin, :, :most]
            self.places = [moved.get(place, place) for place in self.places]
        with suppress(RuntimeError, MemoryError):  # no room to move into: another time
            self.reserve(0, max(self.lengths, default=0))

    # a step

    def begin(self) -> None:
        """Get ready for one more token of each row."""
        if max(self.lengths) >= self.room[1]:
            self.settle()
        device, seen = self.keys[0].device, max(self.lengths) + 1
        self.at = torch.tensor([self.places, self.lengths], device=device)
        self.order = None  # rows by place
        if self.places != sorted(self.places):
            self.order = torch.tensor(self.places, device=device).argsort()
        self.seen, self.mask = seen, None
        if min(self.lengths) + 1 < seen:
            own = torch.tensor(self.lengths, device=device)
            own = own if self.order is None else own[self.order]
            far = torch.arange(seen, device=device) > own[:, None]
            blank = torch.zeros(far.shape, device=device, dtype=self.keys[0].dtype)
            self.mask = blank.masked_fill_(far, -torch.inf)[:, None, None]  # [B, 1, 1, T]

    def end(self) -> None:
        self.lengths = [one + 1 for one in self.lengths]

    def attend(self, layer: int, query: Tensor, new: Part, scale: float | None, front: Part | None) -> Tensor:
        """[B, heads, 1, D] and the new keys and values -> [B, 1, heads, D]; `front` is what all rows begin with."""
        keys, values = self.keys[layer], self.values[layer]
        rows, heads, _, width = query.shape
        places, at = self.at
        keys[places, :, at], values[places, :, at] = new[0][:, :, 0].to(keys), new[1][:, :, 0].to(values)
        query = query.reshape(rows, keys.shape[1], -1, width)  # heads that look at the same keys, side by side
        asked = query if self.order is None else query.index_select(0, self.order)
        found = part(asked, keys[:rows, :, : self.seen], values[:rows, :, : self.seen], scale, self.mask)
        if self.order is not None:
            found = found[0].index_select(0, places), found[1].index_select(0, places)
        if any(group.keys for group in self.groups):
            found = together(self.of_prompts(layer, query, scale), found)
        if front is not None:
            spans = [(slice(0, rows), tuple(one.to(query) for one in front))]
            found = together(spread(query, spans, scale), found)
        return found[0].reshape(rows, 1, heads, -1)

    def of_prompts(self, layer: int, query: Tensor, scale: float | None) -> Part:
        start, spans = 0, []
        for group in self.groups:
            span = slice(start, start + group.count)
            spans.append((span, (group.keys[layer], group.values[layer]) if group.keys else None))
            start += group.count
        return spread(query, spans, scale)


def usual(lengths: Sequence[int]) -> int:
    """The longest that is no more than FAR times the average and USUAL; what those that are longer have counts as 0."""
    left = sum(lengths)
    for length in sorted(lengths, reverse=True):
        if length <= FAR * left / len(lengths) + USUAL:
            return length
        left -= length
    return 0


def part(query: Tensor, key: Tensor, value: Tensor, scale: float | None, mask: Tensor | None = None) -> Part:
    """Attention of [B, heads, G, D] to all keys [B, heads, T, D]: [B, heads, G, D] and [B, heads, G]."""
    if query.device.type == "cpu" and query.shape[-1] == value.shape[-1] and query.dtype == key.dtype:
        return FLASH(query, key, value, 0.0, False, attn_mask=mask, scale=scale)
    scores = (query @ key.transpose(-1, -2)).float() * (query.shape[-1] ** -0.5 if scale is None else scale)
    scores = scores if mask is None else scores + mask
    sums = scores.logsumexp(-1)
    return (scores - sums.unsqueeze(-1)).exp().to(value) @ value, sums


def spread(query: Tensor, spans: Sequence[tuple[slice, Any]], scale: float | None) -> Part:
    """Attention of each span of rows to keys and values [1, heads, P, D] that it shares, or to nothing."""
    rows, heads, many, _ = query.shape
    by_head = query.transpose(0, 1)  # [heads, B, G, D]
    made = list(shared(by_head, spans, scale))
    out, sums = (torch.cat(one, 2) for one in zip(*made, strict=True))  # [1, heads, B * G, ...]
    return (
        out.reshape(heads, rows, many, -1).transpose(0, 1),
        sums.reshape(heads, rows, many).transpose(0, 1),
    )


def shared(by_head: Tensor, spans: Sequence[tuple[slice, Any]], scale: float | None) -> Iterator[Part]:
    width = next(held[1].shape[-1] for _, held in spans if held is not None)
    for span, held in spans:
        mine = by_head[:, span].flatten(1, 2).unsqueeze(0)
        if held is None:
            nothing = mine.new_zeros(*mine.shape[:3], width)
            yield nothing, torch.full(mine.shape[:3], -torch.inf, device=mine.device)
        else:
            yield part(mine, held[0], held[1], scale)


def together(one: Part, other: Part) -> Part:
    """Attention to two parts of the keys, each weighed by its share of the normaliser."""
    (left, its), (right, own) = one, other
    share = (its - own).sigmoid().unsqueeze(-1).to(right.dtype)
    return torch.lerp(right, left.to(right.dtype), share), torch.logaddexp(its, own)
