"""How much there is to do in a run: its steps, and what a step is made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Part:
    """Sequences that are computed together."""

    own: tuple[int, ...]
    """Tokens that each has of its own."""
    borrowed: tuple[int, ...] = ()
    """Tokens that each begins with and that stand in another, where any has such."""

    @property
    def tokens(self) -> int:
        """How many are computed."""
        return sum(self.own)


@dataclass(frozen=True)
class Ranked:
    """Prompts that are read together, after which the answers to each are told, one after another."""

    read: tuple[int, ...]
    told: tuple[int, ...]
    """Of each prompt, the tokens of its longest answer."""
    answers: int
    """How many answers each has."""

    @property
    def tokens(self) -> int:
        return sum(self.read) + self.answers * sum(self.told)


@dataclass(frozen=True)
class Work:
    """The steps of a run, some of them looked at."""

    steps: int
    tokens: float
    """Tokens of all training."""
    sampled: tuple[tuple[Part, ...], ...]
    """Of some steps, evenly over the run, the parts on one device."""
    learnt: float
    """The share of tokens that are learnt."""
    measured: tuple[Part, ...] = ()
    """Batches of held-out rows, before and after; the first is the largest."""
    ranked: tuple[Ranked, ...] = ()
    """What is asked of general skills and told of general text, before and after."""
    written: int = 0
    """Tokens that are written one after another when the model is measured."""
    answers: int = 0
    """Sequences that the model writes itself for one rollout."""
    completion: int = 0
    """How long each of these may become."""
    writing: int = 0
    """Sequences that are written at once."""
    rollouts: float = 0.0
    """Rollouts in a step: less than one where answers are learnt from in several steps."""
    looks: float = 0.0
    """How often a step's tokens are looked at without being learnt, on average."""
    assumed: tuple[str, ...] = ()

    @property
    def parts(self) -> Iterator[Part]:
        return (part for step in self.sampled for part in step)

    @property
    def largest(self) -> Part:
        return max(self.parts, key=lambda part: part.tokens)

    @property
    def typical(self) -> Part:
        """The part of middling length."""
        ordered = sorted(self.parts, key=lambda part: part.tokens)
        return ordered[len(ordered) // 2]

    def each(self) -> float:
        """Parts in a step, on average."""
        return sum(map(len, self.sampled)) / len(self.sampled)

    def per_step(self) -> float:
        """Tokens in a step on one device, on average."""
        return sum(part.tokens for part in self.parts) / len(self.sampled)


def rough(row: Any) -> int:
    """About how many tokens a row's texts have."""
    if isinstance(row, str):
        wide = sum(letter > "\u2e80" for letter in row)
        return round(wide / 1.5 + (len(row) - wide) / 4)
    inner = row.values() if isinstance(row, dict) else row if isinstance(row, list | tuple) else ()
    return 6 + sum(map(rough, inner))
