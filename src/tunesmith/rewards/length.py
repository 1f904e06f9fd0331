"""Whether the answer is as long as it should be."""

from typing import Literal

from ..config.record import Count, Natural
from .base import Reward, reward


@reward("length")
class Length(Reward):
    """1 if the answer is near a length, falling evenly to 0 where it is empty or twice as long."""

    target: Count
    """How long it should be."""
    tolerance: Natural = 0
    """How far off that is as good."""
    unit: Literal["tokens", "words", "characters"] = "tokens"
    """What is counted; words are parted by spaces."""

    def one(self, said):
        lengths = {"tokens": said.tokens, "characters": len(said.completion)}
        length = len(said.completion.split()) if self.unit == "words" else lengths[self.unit]
        return max(0.0, 1 - max(0, abs(length - self.target) - self.tolerance) / self.target)
