"""Whether the answer is in the right writing."""

from typing import Literal

from ..script import letters
from .base import Reward, Unscored, reward

Others = Literal["Cyrillic", "Greek", "Hebrew", "Arabic", "Devanagari", "Thai"]
Writing = Literal["prompt", "Latin", "Chinese", "Japanese", "Korean", Others]


@reward("language")
class Language(Reward):
    """The share of the answer's letters that are in the right writing; code and formulas aside."""

    script: Literal[
        "prompt",
        "Latin",
        "Chinese",
        "Japanese",
        "Korean",
        "Cyrillic",
        "Greek",
        "Hebrew",
        "Arabic",
        "Devanagari",
        "Thai",
    ] = "prompt"
    """Which writing; that of the prompt unless given. Languages of one writing are not told apart."""

    def one(self, said):
        counts = letters(said.completion)
        asked = letters(said.prompt)
        if not counts.total():
            raise Unscored("the answer has no letters to tell a writing by")
        if self.script == "prompt" and not asked.total():
            raise Unscored("the prompt has no letters to tell a writing by; set script")
        wanted = asked.most_common(1)[0][0] if self.script == "prompt" else self.script
        return counts[wanted] / counts.total()
