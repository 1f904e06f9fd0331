"""The sequences of a run, and what is known of them before the model that learns looks at them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ..data.batch import Batch, Layout
from ..data.keeping.store import Many, Mixed, learnt
from ..data.rendering.tokens import Tokens
from ..errors import RecipeError
from ..objectives.base import Objective, Tally, looked_at

if TYPE_CHECKING:
    from .policy import Policy
    from .reference import Reference


class Oracle(Protocol):
    """Says how likely the wanted ones of some sequences are to a reference."""

    def ask(self, sequences: Sequence[Tokens], wanted: Sequence[int]) -> Reference: ...


class Processes(Protocol):
    """All that compute a step."""

    def add_up(self, tallies: dict[str, Tally]) -> None:
        """Add up what each counted, in place."""

    def gather(self, values: Tensor) -> tuple[Tensor, int]:
        """The rows of each, and where this one's begin."""
        ...


class Alone:
    """The only one."""

    def add_up(self, tallies: dict[str, Tally]) -> None:
        pass

    def gather(self, values: Tensor) -> tuple[Tensor, int]:
        return values, 0


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
    columns: dict[str, Column] = field(default_factory=dict)
    """What else was found out of the tokens to be learnt, by name."""

    def batch(self, chosen: Sequence[int], layout: Layout) -> Batch:
        """The sequences with these numbers."""
        made = layout([self.sequences[n] for n in chosen])
        known = {name: column.of(chosen) for name, column in self.columns.items()}
        reference = self.reference.of(chosen) if self.reference else known.pop("reference", None)
        return replace(made, reference=reference, known=known)

    def look_back(self, objective: Objective, asker: Oracle, wanted: Sequence[int], cutoff: int) -> None:
        """Find out what an objective wants to know of the wanted sequences before the model learns anything."""
        if objective.asks("baseline"):
            self.strangers = Rows(Strangers(self.sequences, cutoff))
        for rows in filter(None, (self, self.strangers)):
            if "reference" in objective.looks():
                rows.reference = asker.ask(rows.sequences, wanted)

    def known(
        self, objective: Objective, policy: Policy, layout: Layout, parts: Sequence[Sequence[int]], all_of: Processes
    ) -> list[dict[str, Any]]:
        """What an objective must know of a whole step before it judges any of its parts, for each of them."""
        known: list[dict[str, Any]] = [{} for _ in parts]
        if objective.asks("whole"):
            amounts = self.amounts(objective, parts)
            all_of.add_up(amounts)
            for one in known:
                one["whole"] = {name: float(tally.sum) for name, tally in amounts.items()}
        if objective.asks("baseline") and self.strangers is not None:
            shared = {"baseline": Tally(0.0, 0)}
            for chosen in parts:
                shared["baseline"] += self.strangers.tried(objective.measure, objective, policy, layout, chosen)
            all_of.add_up(shared)
            for one in known:
                one["baseline"] = shared["baseline"].mean()
        if objective.asks("partners"):
            own = [self.tried(objective.values, objective, policy, layout, chosen) for chosen in parts]
            whole, at = all_of.gather(torch.cat(own) if own else torch.empty(0))
            partners = objective.match(whole)
            for one, values in zip(known, own, strict=True):
                one["partners"] = partners[at : at + len(values)]
                at += len(values)
        return known

    def amounts(self, objective: Objective, parts: Sequence[Sequence[int]]) -> dict[str, Tally]:
        """How much of each task some sequences have."""
        tasks = self.sequences.tasks if isinstance(self.sequences, Mixed) else ()
        found = {task.name: Tally(0.0, 0) for task in tasks if task}
        for number in (number for chosen in parts for number in chosen):
            name, much = objective.amount(self.sequences[number])
            found[name] = found.get(name, Tally(0.0, 0)) + Tally(much, 1)
        return found

    def tried(self, what: Any, objective: Objective, policy: Policy, layout: Layout, chosen: Sequence[int]) -> Any:
        """What comes of the sequences with these numbers, without learning from them."""
        batch = self.batch(chosen, layout).to(policy.device)
        with policy.trying():
            return what(batch, **policy.look(batch, looked_at(what)))


class Strangers(Many):
    """Of every sequence its prompt, with the answer to the next prompt that is another: what nobody would say there.

    Rows of one prompt often stand side by side, as those of a pair do, and what is learnt of them is no stranger's.
    Which answer that is depends on the rows alone, not on the batch that they are in. Where all have one prompt, it is
    the next answer to the same.
    """

    def __init__(self, sequences: Sequence[Tokens], cutoff: int) -> None:
        if len(sequences) < 2:
            raise RecipeError(
                "data.path: one row is left to train on, and the objective compares rows; give two or more"
            )
        self.sequences, self.cutoff = sequences, cutoff
        starts = ((one.ids, begins(one)) for one in sequences)  # each is read once, however many have its prompt
        read = [(hash(tuple(ids[:begin])), begin, len(ids) - begin) for ids, begin in starts]
        prompts, self.asked, self.said = np.array(read).T
        self.other = next_other(prompts)
        self.one_prompt = bool((prompts == prompts[0]).all())

    def __len__(self) -> int:
        return len(self.sequences)

    def one(self, number: int) -> Tokens:
        asked, other = self.sequences[number], self.sequences[int(self.other[number])]
        prompt = asked.ids[: begins(asked)]
        said = other.ids[begins(other) :]
        said = said[: max(1, self.cutoff - len(prompt))]
        learn = other.learn[begins(other) :][: len(said)]
        return replace(asked, ids=prompt + said, learn=[False] * len(prompt) + learn, weights=None)

    @property
    def learnt(self) -> list[int]:
        """Tokens to be learnt in each; only those that are cut must be made for it."""
        found = np.array(learnt(self.sequences))[self.other]
        for number in np.flatnonzero(self.asked + self.said[self.other] > self.cutoff).tolist():
            found[number] = sum(self[number].learn[1:])
        return found.tolist()


def next_other(values: np.ndarray) -> np.ndarray:
    """[N] of each value the number of the next that is another, the first behind the last; where all are alike, of the
    next."""
    number, size = np.arange(len(values)), len(values)
    ends = np.flatnonzero(values != np.roll(values, -1))  # of stretches that are alike
    if len(ends):
        number = ends[np.searchsorted(ends, number) % len(ends)]
    return (number + 1) % size


def begins(tokens: Tokens) -> int:
    """Where a sequence's first answer begins; nothing stands before a first token."""
    return tokens.learn.index(True, 1)
