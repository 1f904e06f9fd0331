"""Blocks that only some tokens go through (Mixture-of-Depths, Raposo et al. 2024, arXiv:2404.02258).

In training a router takes of each sequence the tokens that it scores highest, which looks at tokens to come. Asked, a
predictor decides of each token by itself; it learns beside the model, from what the router took, and moves nothing
else. Letters of shapes: R rows, T tokens in a row, S tokens that are seen (the last T of them in the row), K chosen, H
width.
"""

from __future__ import annotations

from functools import cache
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import binary_cross_entropy_with_logits


def route(block: Any, width: int, capacity: float) -> None:
    """Let a block choose; at first it computes what it did, for all tokens, when it is asked."""
    weight = next(block.parameters())
    block.__class__ = routed(type(block))
    block.capacity = capacity
    block.router = nn.Linear(width, 1, bias=False)
    last = nn.Linear(ceil(width / 4), 1)
    block.predictor = nn.Sequential(nn.Linear(width, ceil(width / 4)), nn.SiLU(), last)
    nn.init.normal_(block.router.weight, std=1e-8)  # some order; gates of as good as 1, by states of 25,000 too
    nn.init.zeros_(last.weight)
    nn.init.constant_(last.bias, 1e-4)
    for part in (block.router, block.predictor):
        part.to(weight.device, weight.dtype)


@cache
def routed(kind: type) -> type:
    return type(f"Routed{kind.__name__}", (Routed, kind), {})


class Routed(nn.Module):
    """Stands before a block's own class: some tokens go through the block, the others pass by."""

    capacity: float
    router: Any
    predictor: Any
    self_attn: Any

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None, **more: Any) -> Tensor:
        x = hidden_states  # [R, T, H]
        packed = attention_mask is not None and attention_mask.dtype == torch.int64
        rows = Packed(x, attention_mask) if packed else Rows(self, x, attention_mask, more.get("past_key_values"))
        scores, likely = self.router(x).squeeze(-1), self.predictor(x.detach()).squeeze(-1)  # [R, T]
        chosen = rows.best(scores.detach(), self.capacity) if self.training else (likely > 0) & rows.real
        at, there = places(chosen)
        if at.shape[1] == 0:
            rows.pass_by()
            return x
        some = pick(x, at)
        given = more | rows.seen(chosen, at, there)
        for name in ("position_ids", "position_embeddings"):
            if isinstance(own := more.get(name), tuple):
                given[name] = tuple(pick(one.expand(len(x), -1, -1), at) for one in own)
            elif own is not None:
                given[name] = own.expand(len(x), -1).gather(1, at)
        change = super().forward(some, **given) - some
        gate = 2 * scores.gather(1, at).sigmoid() * there
        out = x.scatter_add(1, at.unsqueeze(-1).expand_as(change), gate.unsqueeze(-1) * change)
        if not (self.training and torch.is_grad_enabled()):
            return out
        real = rows.real
        also = binary_cross_entropy_with_logits(likely[real].float(), chosen[real].float(), reduction="sum")
        made: Any = Also.apply(out, also)
        return made


class Also(torch.autograd.Function):
    """`out`, whose backward pass also goes down a loss of its own: a sum over tokens, as the objective's is."""

    @staticmethod
    def forward(ctx, out, loss):
        return out.view_as(out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return grads[0], grads[0].new_ones((), dtype=torch.float32)


def places(chosen: Tensor) -> tuple[Tensor, Tensor]:
    """[R, K] where the chosen tokens of each row stand, in their order; and which of these are chosen ones, since a row
    may have fewer than another."""
    most = int(chosen.sum(1).max())
    at = torch.argsort(chosen.long(), dim=1, descending=True, stable=True)[:, :most]
    return at, chosen.gather(1, at)


def pick(states: Tensor, at: Tensor) -> Tensor:
    """[R, T, H] -> [R, K, H]."""
    return states.gather(1, at.unsqueeze(-1).expand(-1, -1, states.shape[-1]))


def share(count: int, capacity: float) -> int:
    """How many of a sequence's tokens are taken."""
    return max(1, ceil(count * capacity))


class Packed:
    """Sequences one after another in a row, told apart by their lengths where a mask would stand."""

    def __init__(self, x: Tensor, mask: Any) -> None:
        borrowed, self.lengths = mask[0, 0].tolist()
        if any(borrowed):
            raise ValueError("what sequences begin with is not chosen alike for all, so that it cannot be shared")
        self.mask = mask
        self.real = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)

    def best(self, scores: Tensor, capacity: float) -> Tensor:
        """[1, T] of each sequence its share, by their scores; of equal ones the earlier."""
        chosen = torch.zeros_like(self.real)
        for own, taken in zip(scores[0].split(self.lengths), chosen[0].split(self.lengths), strict=True):
            taken[torch.argsort(own, descending=True, stable=True)[: share(len(own), capacity)]] = True
        return chosen

    def seen(self, chosen: Tensor, at: Tensor, there: Tensor) -> dict[str, Any]:
        left = [count for own in chosen[0].split(self.lengths) if (count := int(own.sum()))]
        return {"attention_mask": self.mask.new_tensor([[0] * len(left), left])[None, None]}

    def pass_by(self) -> None:
        pass


class Rows:
    """A sequence in each row, with a mask over tokens and those in a cache."""

    def __init__(self, block: Any, x: Tensor, mask: Tensor | None, cache: Any) -> None:
        self.block, self.x, self.cache = block, x, cache
        self.layer = block.self_attn.layer_idx
        before = cache.get_seq_length(self.layer) if cache is not None else 0
        if mask is None:
            self.may = torch.ones(x.shape[1], before + x.shape[1], dtype=torch.bool, device=x.device).tril(before)
            self.may = self.may.expand(len(x), -1, -1)
        else:
            self.may = (mask if mask.dtype == torch.bool else mask == 0)[:, 0].expand(len(x), -1, -1)  # [R, T, S]
        self.real = self.may[:, :, before:].diagonal(dim1=1, dim2=2)

    def best(self, scores: Tensor, capacity: float) -> Tensor:
        """[R, T] as `Packed.best`."""
        chosen = torch.zeros_like(self.real)
        for own, real, taken in zip(scores, self.real, chosen, strict=True):
            order = torch.argsort(own.masked_fill(~real, -torch.inf), descending=True, stable=True)
            taken[order[: share(int(real.sum()), capacity)]] = True
        return chosen

    def seen(self, chosen: Tensor, at: Tensor, there: Tensor) -> dict[str, Any]:
        """What the chosen tokens see: of those before them the chosen ones, which alone have keys in the cache."""
        may = self.may.gather(1, at.unsqueeze(-1).expand(-1, -1, self.may.shape[-1]))  # [R, K, S]
        given: dict[str, Any] = {}
        if self.cache is None:
            may = may.gather(2, at.unsqueeze(1).expand(-1, len(at[0]), -1)) & there.unsqueeze(1)
            itself = torch.eye(may.shape[1], dtype=torch.bool, device=may.device)
        else:
            given["past_key_values"] = Placed(self.cache, at, there, self.x.shape[1])
            may = may & torch.cat([self.known(), chosen], 1).unsqueeze(1)
            itself = torch.zeros_like(may)
            itself.scatter_(2, at.unsqueeze(-1) + may.shape[2] - self.x.shape[1], True)
        may = (may | itself).unsqueeze(1)  # without itself a token that only fills up would see nothing
        if "eager" in self.block.self_attn.config._attn_implementation:
            blank = torch.zeros(may.shape, dtype=self.x.dtype, device=may.device)
            may = blank.masked_fill(~may, torch.finfo(self.x.dtype).min)
        return given | {"attention_mask": may}

    def known(self) -> Tensor:
        """[R, S - T] which tokens before went through this block: the keys of the others are nothing."""
        if not self.cache.get_seq_length(self.layer):
            return self.real[:, :0]
        return (self.cache.layers[self.layer].keys != 0).any(-1).any(1)

    def pass_by(self) -> None:
        """Keep the cache as long as that of other blocks."""
        if self.cache is None:
            return
        attention, (rows, length, _) = self.block.self_attn, self.x.shape
        width = attention.head_dim
        heads = attention.k_proj.out_features // width
        nothing = self.x.new_zeros(rows, heads, length, width)
        self.cache.update(nothing, nothing, self.layer)


class Placed:
    """A cache that puts the keys and values of chosen tokens where these stand in the row, and nothing elsewhere."""

    def __init__(self, cache: Any, at: Tensor, there: Tensor, length: int) -> None:
        self.cache, self.at, self.there, self.length = cache, at, there, length

    def update(self, keys: Tensor, values: Tensor, layer: int, *more: Any, **named: Any) -> tuple[Tensor, Tensor]:
        """[R, heads, K, D] -> [R, heads, S, D]."""
        spread = []
        for one in (keys, values):
            to = self.at[:, None, :, None].expand_as(one)
            there = self.there[:, None, :, None]
            spread.append(one.new_zeros(*one.shape[:2], self.length, one.shape[3]).scatter(2, to, one * there))
        return self.cache.update(*spread, layer, *more, **named)
