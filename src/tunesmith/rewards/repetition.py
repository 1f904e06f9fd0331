"""How much of the answer it has said before."""

import re

from ..config.record import Count
from .base import Reward, reward

WORD = re.compile("[\u2e80-\u9fff\uf900-\ufaff]|[^\\W\u2e80-\u9fff\uf900-\ufaff]+")
"""A character of Chinese or Japanese, or a word of other writings."""


@reward("repetition")
class Repetition(Reward):
    """Minus the share of the answer's n-grams that stood in it before: 0 at best, near -1 for a loop."""

    n: Count = 3
    """How many words make an n-gram."""

    def one(self, said):
        words = WORD.findall(said.completion.casefold())
        grams = [tuple(words[at : at + self.n]) for at in range(len(words) - self.n + 1)]
        return (len(set(grams)) - len(grams)) / len(grams) if grams else 0.0
