"""Sequences as tensors: packed, one after another in a single row, or padded, each in its own row.

Letters of shapes: R rows, T tokens in a row, N sequences, M tokens to be learnt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from os.path import commonprefix
from typing import Any

import torch
from torch import Tensor

from .rendering.tokens import RATED, Tokens
from .task import Task


@dataclass
class Batch:
    """Several sequences. `owner` says which one a token is of, so that nobody need know how they are laid out."""

    ids: Tensor  # [R, T]
    learn: Tensor  # [R, T] bool
    owner: Tensor  # [R, T]
    place: Tensor  # [R, T] position within its sequence
    attend: Tensor | None  # [R, T] 0 where it is padding; none where rows are packed
    answers: int
    label: Tensor | None = None  # [N] class, -1 for none; none where no sequence has one
    weight: Tensor | None = None  # [R, T] how much a token to be learnt counts; none where each counts 1
    borrowed: tuple[int, ...] = ()
    """Of each sequence, how many of its first tokens stand only in the one that it branches off from, the nearest
    before it that borrows none; empty where none does."""
    reference: Tensor | None = None  # [M] log-probabilities before anything was learnt
    margin: Tensor | None = None  # [N] by how much a pair's better answer is better; none where nobody says
    agreement: Tensor | None = None  # [N] the share of raters who hold it to be the better; none where all do
    grade: Tensor | None = None  # [N] where a text stands on a scale; none where all are 0
    marks: tuple[tuple[float, ...], ...] = ()
    """Of each sequence, what Tokens.marks says."""
    tasks: tuple[Task | None, ...] = ()
    """Of each sequence, which of a run's tasks it is of; empty where there is one."""
    known: dict[str, Tensor] = field(default_factory=dict)
    """What else was found out of tokens to be learnt before they are, [M] each, by name."""

    def to(self, device: torch.device) -> Batch:
        moved = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **moved, known={name: value.to(device) for name, value in self.known.items()})

    def last(self, padding: int | None = None) -> Tensor:
        """[N] where in the flattened rows each sequence ends.

        The token that pads is passed over at the end, as transformers does even where nothing is padded: it often is
        the stop token too.
        """
        there = self.place if self.attend is None else self.place.masked_fill(self.attend == 0, -1)
        begun = torch.full((self.answers,), -1).to(there)
        whole, best = (
            begun.scatter_reduce(0, self.owner.flatten(), places.flatten(), "amax")
            for places in (there, there if padding is None else there.masked_fill(self.ids == padding, -1))
        )
        best = best.where(best >= 0, whole)
        ends = (there == best[self.owner]).flatten().nonzero().squeeze(-1)
        return ends[self.owner.flatten()[ends].argsort()]

    @property
    def lengths(self) -> Tensor:
        """[N] how many tokens each sequence has of its own; what it borrows stands elsewhere."""
        there = self.owner.flatten() if self.attend is None else self.owner[self.attend.bool()]
        return there.bincount(minlength=self.answers)

    @property
    def tokens(self) -> int:
        """How many tokens the sequences have, padding aside."""
        if self.attend is not None:
            return int(self.attend.sum())
        return self.ids.numel() + sum(self.borrowed)


Layout = Callable[[Sequence[Tokens]], Batch]


def pack(sequences: Sequence[Tokens], borrowed: Sequence[int] = ()) -> Batch:
    """One row, no padding; attention is kept within each sequence by `place`."""
    firsts = borrowed or [0] * len(sequences)
    spans = [range(first, len(tokens.ids)) for first, tokens in zip(firsts, sequences, strict=True)]

    def row(values) -> Tensor:
        return torch.tensor([[value for own, span in zip(values, spans, strict=True) for value in own[span.start :]]])

    learn = row([False, *tokens.learn[1:]] for tokens in sequences)  # nothing stands before a first token
    owner = torch.tensor([[number for number, span in enumerate(spans) for _ in span]])
    place = torch.tensor([[place for span in spans for place in span]])
    ids = row(tokens.ids for tokens in sequences)
    weight = row(map(weights, sequences)) if weighted(sequences) else None
    there = tuple(borrowed) if any(borrowed) else ()
    made = Batch(ids, learn, owner, place, None, len(sequences), labels(sequences), weight, there)
    return rated(made, sequences)


def share(sequences: Sequence[Tokens]) -> Batch:
    """One row, no padding; what neighbouring sequences begin with stands in it once, for all of them."""
    return pack(sequences, branches(sequences))


def branches(sequences: Sequence[Tokens]) -> list[int]:
    """Of each sequence, how many tokens it borrows from the one it branches off from, so that most are saved.

    Neighbours that begin alike are a family: pairs of answers to one prompt, all rows under one instruction. Which
    families save most is found by what is best up to each sequence. A family's beginning ends one token short of the
    first that any of it learns, or of its end, so that what predicts a token to be learnt is each sequence's own.
    """
    free = [max(0, owned(tokens)) for tokens in sequences]
    alike = [0, *(same(one.ids, two.ids) for one, two in pairwise(sequences))]
    best, begins = [0], [0]
    for end in range(1, len(sequences) + 1):
        saved, begin, least = best[end - 1], end - 1, free[end - 1]
        for first in range(end - 2, -1, -1):
            least = min(least, alike[first + 1], free[first])
            if not least:
                break
            if (whole := best[first] + least * (end - 1 - first)) > saved:
                saved, begin = whole, first
        best.append(saved)
        begins.append(begin)
    borrowed = [0] * len(sequences)
    end = len(sequences)
    while end:
        first = begins[end]
        for child in range(first + 1, end):
            borrowed[child] = (best[end] - best[first]) // (end - 1 - first)
        end = first
    return borrowed


def owned(tokens: Tokens) -> int:
    """How many tokens of a sequence may stand elsewhere: those before the last that nothing learnt depends on.

    Of a text that is classified, the last token is looked at, or the one before a run of it, if it is what pads.
    """
    ids = tokens.ids
    run = next((n for n, one in enumerate(reversed(ids)) if one != ids[-1]), len(ids))
    return next((at for at, learn in enumerate(tokens.learn) if learn and at), len(ids) - run) - 1


def same(one: list[int], two: list[int]) -> int:
    """How many tokens two sequences begin with in common."""
    return len(commonprefix([one, two]))


def pad(sequences: Sequence[Tokens]) -> Batch:
    """A row each, filled up at the end with token 0, which nothing attends to."""
    width = max(len(tokens.ids) for tokens in sequences)
    ids = torch.tensor([tokens.ids + [0] * (width - len(tokens.ids)) for tokens in sequences])
    learn = torch.tensor([[False, *tokens.learn[1:]] + [False] * (width - len(tokens.ids)) for tokens in sequences])
    weight = None
    if weighted(sequences):
        weight = torch.tensor([weights(tokens) + [0.0] * (width - len(tokens.ids)) for tokens in sequences])
    lengths = torch.tensor([len(tokens.ids) for tokens in sequences]).unsqueeze(-1)
    place = torch.arange(width).expand(len(sequences), width)
    owner = torch.arange(len(sequences)).unsqueeze(-1).expand_as(place)
    there = (place < lengths).long()
    made = Batch(ids, learn, owner, place, there, len(sequences), labels(sequences), weight)
    return rated(made, sequences)


def weighted(sequences: Sequence[Tokens]) -> bool:
    return any(tokens.weights is not None for tokens in sequences)


def weights(tokens: Tokens) -> list[float]:
    return [float(learn) for learn in tokens.learn] if tokens.weights is None else tokens.weights


def rated(made: Batch, sequences: Sequence[Tokens]) -> Batch:
    """A batch with what raters said of its pairs or texts, where they said anything, and its tasks."""
    found = {name: [getattr(one, name) for one in sequences] for name in RATED}
    said: dict[str, Any] = {
        name: torch.tensor(values) for name, values in found.items() if set(values) != {RATED[name]}
    }
    if any(tokens.task for tokens in sequences):
        said["tasks"] = tuple(tokens.task for tokens in sequences)
        said["marks"] = tuple(tokens.marks for tokens in sequences)
    return replace(made, **said) if said else made


def labels(sequences: Sequence[Tokens]) -> Tensor | None:
    known = [-1 if tokens.label is None else tokens.label for tokens in sequences]
    return torch.tensor(known) if any(label >= 0 for label in known) else None
