"""What answers are worth: the scores of several rewards, added up by their weights."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from ..errors import Refusal
from ..files import sha256
from ..rewards.base import Reward, Said, Scorer, Tools


@dataclass(frozen=True)
class Scored:
    """What answers are worth."""

    total: list[float | None]
    """Of each the weighted sum; None where a reward that counts could not score it."""
    each: dict[str, list[float | None]]
    """The same of every reward alone, without its weight."""
    reasons: dict[str, dict[str, int]] = field(default_factory=dict)
    """By reward, why answers could not be scored, and how many."""

    @property
    def failed(self) -> int:
        """How many answers have no total."""
        return self.total.count(None)

    @property
    def figures(self) -> dict[str, float]:
        """Means over what could be scored, and how much could not, by names for a log."""
        rows = {f"rewards/{name}": values for name, values in self.each.items()} | {"reward": self.total}
        there = {name: [value for value in values if value is not None] for name, values in rows.items()}
        means = {name: sum(values) / len(values) for name, values in there.items() if values}
        return means | {"rewards/failed": float(self.failed)}


class Scoring:
    """Rewards at work; closed, they let go of their processes."""

    def __init__(self, rewards: Sequence[Reward], tools: Tools | None = None) -> None:
        self.rewards = dict(zip(names(rewards), rewards, strict=True))
        self.ever = False
        """Whether any answer could be scored."""
        self.stack = ExitStack()
        with ExitStack() as opening:
            self.scorers: dict[str, Scorer] = {
                name: opening.enter_context(one.scorer(tools)) for name, one in self.rewards.items()
            }
            self.stack = opening.pop_all()

    def __enter__(self) -> Scoring:
        return self

    def __exit__(self, *_: Any) -> None:
        self.stack.close()

    def score(self, said: Sequence[Said]) -> Scored:
        """What each answer is worth. Raises Refusal if none of them can be scored, and none ever could: the rewards are
        at fault. Later it may be the answers, such as a policy's that says nothing any more."""
        each: dict[str, list[float | None]] = {}
        reasons: dict[str, dict[str, int]] = {}
        for name, scorer in self.scorers.items():
            scorer.reasons.clear()
            each[name] = scorer.score(said)
            if scorer.reasons:
                reasons[name] = dict(scorer.reasons)
        made = Scored([self.total(each, n) for n in range(len(said))], each, reasons)
        self.ever = self.ever or made.failed < len(said)
        if said and not self.ever:
            name, why = next(iter(reasons.items()))
            raise Refusal(
                f"rewards: none of {len(said)} answers could be scored: {name}: {next(iter(why))}; mend the reward, or"
                " leave it out"
            )
        return made

    def total(self, each: dict[str, list[float | None]], number: int) -> float | None:
        total = 0.0
        for name, one in self.rewards.items():
            value = each[name][number]
            if one.weight == 0:  # it is watched, and does not count
                continue
            if value is None:
                return None
            total += one.weight * value
        return total


def refuse_rewards(rewards: Sequence[Reward]) -> None:
    """Refuse what cannot be, before anything is read."""
    for number, one in enumerate(rewards):
        one.refuse(f"rewards.{number}")


def code(rewards: Sequence[Reward]) -> dict[str, str]:
    """The hash of every file that decides what rewards give."""
    return {f"rewards.{n}: {file}": sha256(file) for n, one in enumerate(rewards) for file in one.code()}


def names(rewards: Sequence[Reward]) -> list[str]:
    """What each reward is called; the second of a kind has a number behind its name."""
    kinds = [one.name for one in rewards]
    found = []
    for at, kind in enumerate(kinds):
        before = kinds[:at].count(kind)
        found.append(f"{kind}_{before + 1}" if before else kind)
    return found
