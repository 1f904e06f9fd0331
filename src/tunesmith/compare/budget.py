"""How much each method of a comparison, or a trial, may use: optimizer steps, tokens, or time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from ..errors import RecipeError
from ..runs import RunFolder

UNITS = {"steps": 1, "tokens": 1, "s": 1, "m": 60, "h": 3600}
SAID = re.compile(r"(\d+\.?\d*(?:e\d+)?)\s*(steps|tokens|s|m|h)")


@dataclass(frozen=True)
class Spent:
    """What training took."""

    steps: int = 0
    tokens: int = 0
    """Real ones, padding aside."""
    seconds: float = 0.0
    """Of training alone; of a trial, by the clock on the wall."""

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.steps + other.steps, self.tokens + other.tokens, self.seconds + other.seconds)

    @staticmethod
    def of(folder: RunFolder) -> Spent:
        """What a run took, as far as its metrics tell."""
        lines = [line for line in folder.metrics if "tokens" in line]
        if not lines:
            return Spent()
        last = lines[-1]
        speed = last["tokens_per_second"]
        return Spent(int(last["step"]), int(last["tokens"]), last["tokens"] / speed if speed else 0.0)


@dataclass(frozen=True)
class Budget:
    """So much of one thing."""

    kind: Literal["steps", "tokens", "seconds"]
    amount: float

    @staticmethod
    def read(said: str) -> Budget:
        """A budget as one writes it: 400steps, 1e6tokens, 90s, 10m, 1.5h."""
        found = SAID.fullmatch(said.strip())
        amount = float(found[1]) * UNITS[found[2]] if found else 0.0
        if not found or amount <= 0 or (found[2] in ("steps", "tokens") and amount < 1):
            raise RecipeError(f"--budget: must be steps, tokens or time, as 400steps, 1e6tokens or 10m (got {said})")
        kind = found[2]
        return Budget(kind if kind == "steps" or kind == "tokens" else "seconds", amount)

    def of(self, spent: Spent) -> float:
        """How much of it was spent."""
        return float(getattr(spent, self.kind))

    def word(self, amount: float) -> str:
        """So much of it, in words."""
        return f"{amount:,.0f} s" if self.kind == "seconds" else f"{amount:,.0f} {self.kind}"

    def __str__(self) -> str:
        return self.word(self.amount)

    def words(self, left: float, price: float = 1.0) -> list[str]:
        """What makes a run use what is left. Of time, as many steps as fit by the price of one, so that the learning
        rate comes to its end; a clock stops the run where these take longer."""
        free = ["train.max_steps=-1", "train.num_train_tokens=null", "train.max_seconds=null"]
        if self.kind == "tokens":
            return [*free, f"train.num_train_tokens={max(1, int(left))}"]
        words = [*free, f"train.max_steps={max(1, int(left / price))}"]
        return [*words, f"train.max_seconds={left:.3f}"] if self.kind == "seconds" else words
