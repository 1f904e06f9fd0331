"""The sequences of a run, and what is known of them before the model that learns looks at them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..data.batch import Batch, Layout
from ..data.keeping.store import Many
from ..data.rendering.tokens import Tokens
from ..errors import RecipeError
from ..objectives.base import Objective, Tally

if TYPE_CHECKING:
    from .policy import Policy
    from .reference import Asker, Reference


@dataclass
class Column:
    """A number for each token to be learnt."""

    values: Tensor  # [M] or [M, K] float32
    ends: list[int]
    """[N + 1] where those of each sequence end, behind a 0."""

    def of(self, chosen: Sequence[int]) -> Tensor:
        """[M] those of the sequences with these numbers, in this order."""
        return torch.cat([self.values[self.ends[n] : self.ends[n + 1]] for n in chosen])


@dataclass
class Rows:
    """Sequences, what a reference said of them, and, for an objective that measures them first, strangers."""

    sequences: Sequence[Tokens]
    reference: Reference | None = None
    strangers: Rows | None = None
    known: dict[str, Column] = field(default_factory=dict)
    """What else was found out of the tokens to be learnt, by name."""

    def batch(self, chosen: Sequence[int], layout: Layout) -> Batch:
        """The sequences with these numbers."""
        made = layout([self.sequences[n] for n in chosen])
        known = {name: column.of(chosen) for name, column in self.known.items()}
        reference = self.reference.of(chosen) if self.reference else known.pop("reference", None)
        return replace(made, reference=reference, known=known)

    def look_back(self, objective: Objective, asker: Asker, wanted: Sequence[int], cutoff: int) -> None:
        """Find out what an objective wants to know of the wanted sequences before the model learns anything."""
        if objective.measures_first():
            self.strangers = Rows(Strangers(self.sequences, cutoff))
        for rows in filter(None, (self, self.strangers)):
            if "reference" in objective.looks():
                rows.reference = asker.ask(rows.sequences, wanted)

    def measure(self, objective: Objective, policy: Policy, chosen: Sequence[int], layout: Layout) -> Tally:
        """What an objective's baseline is the mean of, of the strangers with these numbers."""
        if self.strangers is None:
            return Tally(0.0, 0)
        batch = self.strangers.batch(chosen, layout).to(policy.device)
        with policy.trying():
            return objective.measure(batch, **policy.look(batch, objective.looks()))


class Strangers(Many):
    """Of every sequence its prompt, with the answer of the one after it: what nobody would say there.

    Which answer that is depends on the rows alone, not on the batch that they are in.
    """

    def __init__(self, sequences: Sequence[Tokens], cutoff: int) -> None:
        if len(sequences) < 2:
            raise RecipeError(
                "data.path: one row is left to train on, and the objective compares rows; give two or more"
            )
        self.sequences, self.cutoff = sequences, cutoff

    def __len__(self) -> int:
        return len(self.sequences)

    def one(self, number: int) -> Tokens:
        asked, other = self.sequences[number], self.sequences[(number + 1) % len(self)]
        prompt, said = asked.ids[: begins(asked)], other.ids[begins(other) :]
        said = said[: max(1, self.cutoff - len(prompt))]
        learn = other.learn[begins(other) :][: len(said)]
        return replace(asked, ids=prompt + said, learn=[False] * len(prompt) + learn, weights=None)


def begins(tokens: Tokens) -> int:
    """Where a sequence's first answer begins; nothing stands before a first token."""
    return tokens.learn.index(True, 1)
