"""Sequences as tensors: packed, one after another in a single row, or padded, each in its own row.

Letters of shapes: R rows, T tokens in a row, N sequences, M tokens to be learnt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .render import Tokens


@dataclass
class Batch:
    """Several sequences. `owner` says which one a token is of, so that nobody need know how they are laid out."""

    ids: Tensor  # [R, T]
    learn: Tensor  # [R, T] bool
    owner: Tensor  # [R, T]
    place: Tensor  # [R, T] position within its sequence
    attend: Tensor | None  # [R, T] 0 where it is padding; none where rows are packed
    answers: int
    label: Tensor | None = None  # [N] class

    def to(self, device: torch.device) -> Batch:
        moved = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **moved)

    @property
    def last(self) -> Tensor:
        """[N] where in the flattened rows each sequence ends."""
        there = self.place if self.attend is None else self.place.masked_fill(self.attend == 0, -1)
        best = (
            torch.full((self.answers,), -1).to(there).scatter_reduce(0, self.owner.flatten(), there.flatten(), "amax")
        )
        ends = (there == best[self.owner]).flatten().nonzero().squeeze(-1)
        return ends[self.owner.flatten()[ends].argsort()]

    @property
    def lengths(self) -> Tensor:
        """[N] how many tokens each sequence has."""
        there = self.owner.flatten() if self.attend is None else self.owner[self.attend.bool()]
        return there.bincount(minlength=self.answers)

    @property
    def tokens(self) -> int:
        """How many tokens there are, padding aside."""
        return self.ids.numel() if self.attend is None else int(self.attend.sum())


Layout = Callable[[Sequence[Tokens]], Batch]


def pack(sequences: Sequence[Tokens]) -> Batch:
    """One row, no padding; attention is kept within each sequence by `place`."""

    def row(values) -> Tensor:
        return torch.tensor([[value for sequence in values for value in sequence]])

    learn = row([False, *tokens.learn[1:]] for tokens in sequences)  # nothing stands before a first token
    owner = row([number] * len(tokens.ids) for number, tokens in enumerate(sequences))
    place = row(range(len(tokens.ids)) for tokens in sequences)
    ids = row(tokens.ids for tokens in sequences)
    return Batch(ids, learn, owner, place, None, len(sequences), labels(sequences))


def pad(sequences: Sequence[Tokens]) -> Batch:
    """A row each, filled up at the end with token 0, which nothing attends to."""
    width = max(len(tokens.ids) for tokens in sequences)
    ids = torch.tensor([tokens.ids + [0] * (width - len(tokens.ids)) for tokens in sequences])
    learn = torch.tensor([[False, *tokens.learn[1:]] + [False] * (width - len(tokens.ids)) for tokens in sequences])
    lengths = torch.tensor([len(tokens.ids) for tokens in sequences]).unsqueeze(-1)
    place = torch.arange(width).expand(len(sequences), width)
    owner = torch.arange(len(sequences)).unsqueeze(-1).expand_as(place)
    return Batch(ids, learn, owner, place, (place < lengths).long(), len(sequences), labels(sequences))


def labels(sequences: Sequence[Tokens]) -> Tensor | None:
    known = [tokens.label for tokens in sequences if tokens.label is not None]
    return torch.tensor(known) if len(known) == len(sequences) else None
