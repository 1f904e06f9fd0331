"""What a search for a learning rate and a rank found, and what of it is more than chance."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from .budget import Budget, Spent
from .chance import student


@dataclass(frozen=True)
class Setting:
    """What is searched over."""

    rate: float
    rank: int | None = None

    def __str__(self) -> str:
        return f"learning rate {self.rate:g}" + (f", rank {self.rank}" if self.rank else "")

    @property
    def name(self) -> str:
        return f"rate-{self.rate:g}" + (f"-rank-{self.rank}" if self.rank else "")


@dataclass
class Tried:
    """A setting, and what its runs came to."""

    setting: Setting
    rungs: dict[int, float] = field(default_factory=dict)
    """By steps, its loss on validation rows."""
    again: list[float] = field(default_factory=list)
    """The same of the longest runs under other seeds."""
    failed: str = ""


@dataclass(frozen=True)
class Outcome:
    """What a trial found."""

    tried: tuple[Tried, ...]
    best: Tried
    own: Tried | None
    """The recipe's own setting, if its longest run came to an end."""
    rungs: tuple[int, ...]
    spent: Spent
    budget: Budget

    def losses(self, one: Tried) -> list[float]:
        """What the longest runs of a setting came to. A setting that won by its first seed is flattered by that: it is
        judged by the others."""
        first = one.rungs.get(self.rungs[-1])
        flattered = one is self.best and one is not self.own and one.again
        return one.again if flattered or first is None else [first, *one.again]

    def loss(self, one: Tried) -> float:
        found = self.losses(one)
        return sum(found) / len(found)

    @property
    def noise(self) -> tuple[float, int]:
        """The standard deviation of a run's loss over seeds, and its degrees of freedom."""
        groups = [[one.rungs[self.rungs[-1]], *one.again] for one in {id(one): one for one in self.repeated}.values()]
        free = sum(len(group) - 1 for group in groups)
        squares = sum((loss - sum(group) / len(group)) ** 2 for group in groups for loss in group)
        return (math.sqrt(squares / free) if free else math.nan), free

    @property
    def repeated(self) -> list[Tried]:
        return [one for one in (self.best, self.own) if one and one.again]

    def chance(self, one: Tried, other: Tried) -> float:
        """By how much two settings may differ by chance alone, 19 times of 20."""
        deviation, free = self.noise
        if not free:
            return math.inf
        each = 1 / len(self.losses(one)) + 1 / len(self.losses(other))
        return student(free) * deviation * math.sqrt(each)

    @property
    def winner(self) -> Tried | None:
        """The setting that is better than the recipe's own by more than chance; none where there is none."""
        if self.own is None:
            return self.best
        gain = self.loss(self.own) - self.loss(self.best)
        return self.best if self.best is not self.own and gain > self.chance(self.best, self.own) else None

    def verdict(self, one: Tried) -> str:
        """What can be said of a setting, beside the recipe's own."""
        if one.failed and self.rungs[-1] not in one.rungs:
            return f"failed: {one.failed}"
        if one is self.own:
            return "the recipe's own"
        if self.rungs[-1] not in one.rungs:
            return "left behind"
        if self.own is None:
            return "best" if one is self.best else ""
        apart = self.loss(one) - self.loss(self.own)
        if abs(apart) <= self.chance(one, self.own):
            return "differs from the recipe's own by no more than noise"
        return "better than the recipe's own" if apart < 0 else "worse than the recipe's own"

    def sentences(self) -> list[str]:
        """What was found, in words."""
        deviation, free = self.noise
        said = [f"used: {self.budget.word(self.budget.of(self.spent))} of {self.budget}"]
        if free:
            pair = student(free) * deviation * math.sqrt(2)
            said.append(
                f"noise floor: {deviation:.3g} of loss, the standard deviation over seeds ({free} degrees of freedom);"
                f" two single runs that differ by less than {pair:.3g} may be the same"
            )
        best, won = self.best, self.winner
        if self.own is None:
            said.append(f"the recipe's own setting did not come to its end; the best is {best.setting}")
        elif won is None:
            said.append("no setting is better than the recipe's own by more than noise")
        else:
            gain = self.loss(self.own) - self.loss(best)
            said.append(
                f"{best.setting}: a loss of {self.loss(best):.4g}, on other seeds than it won by, and"
                f" {self.loss(self.own):.4g} with the recipe's own; of the {gain:.3g} between them"
                f" {self.chance(best, self.own):.3g} may be chance"
            )
        return said

    @property
    def rows(self) -> list[tuple[Tried, str]]:
        """All settings, those that got farthest first, and of these the best."""

        def key(one: Tried) -> tuple[int, float]:
            last = max(one.rungs, default=0)
            return -last, one.rungs.get(last, math.inf)

        return [(one, self.verdict(one)) for one in sorted(self.tried, key=key)]

    def as_json(self) -> dict[str, Any]:
        deviation, free = self.noise
        return {
            "settings": [
                {"learning_rate": one.setting.rate, "rank": one.setting.rank, "losses": one.rungs, "again": one.again}
                | {"verdict": said}
                for one, said in self.rows
            ],
            "noise": {"deviation": deviation if free else None, "degrees_of_freedom": free},
            "winner": asdict(self.winner.setting) if self.winner else None,
            "spent": asdict(self.spent),
            "said": self.sentences(),
        }
