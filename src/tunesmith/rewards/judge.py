"""What a judge gives the answer by a rubric."""

from __future__ import annotations

from pathlib import Path

from ..errors import RecipeError
from ._settings import Judge
from .base import Reward, Scorer, reward


@reward("judge")
class JudgeReward(Reward):
    """What a language model gives the answer by its rubric, a whole number from `lowest` to `highest`, brought to 0 to
    1."""

    judge: Judge
    """Who judges, and by what."""
    lowest: int = 1
    """The number for the worst answers."""
    highest: int = 10
    """The number for the best."""
    calibration: str | None = None
    """What `tunesmith judge calibrate` wrote of this judge; the run and its report then say how far it agrees with
    people, and otherwise that nobody knows."""

    def refuse(self, key):
        self.judge.refuse(f"{key}.judge")
        if not 1 <= self.highest - self.lowest <= 100:
            raise RecipeError(f"{key}.highest: must be above lowest, by 100 at most (got {self.highest})")
        if self.calibration and not Path(self.calibration).is_file():
            raise RecipeError(
                f"{key}.calibration: {self.calibration}: no such file; `tunesmith judge calibrate` writes one, or leave"
                " it out"
            )

    def code(self):
        return [Path(self.calibration)] if self.calibration else []

    def scorer(self, tools):
        if tools is None:
            raise LookupError(f"{self.name} needs tools")
        ask, width = tools.rubric(self.judge, self.lowest, self.highest), self.highest - self.lowest
        return Scorer(
            lambda said: [
                (given - self.lowest) / width if isinstance(given, int | float) else given for given in ask(said)
            ]
        )
