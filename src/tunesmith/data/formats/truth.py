"""Rows of a prompt and what is right, for rewards to check answers against."""

from ..example import Example
from ._prompted import Prompted
from .base import Column, format_, only, text_in


@format_("truth")
class Truth(Prompted):
    """A prompt, a text or a list of turns, and the right answer, which is compared with and not learnt."""

    prompt: Column = "prompt"
    """Column of the prompt."""
    truth: Column = "answer"
    """Column of what is right; solution and ground_truth are known too."""

    @classmethod
    def told(cls, sample):
        answered = any(sample.kind(name) for name in ("completion", "chosen"))
        if sample.said("prompt") and not answered:
            names = ("answer", "solution", "ground_truth")
            yield from (cls.having(truth=name) for name in names if sample.text(name))

    def read(self, row):
        prompt = self.opened(row, self.side(row, self.prompt, "user"))
        return Example(prompt=prompt, truth=text_in(row, self.truth), **self.all_beside(row, self.prompt))

    def write(self, example, as_turns=False):
        only(example, self, "prompt", "truth", "tools", "media")
        if example.truth is None:
            raise ValueError("truth needs to know what is right")
        [prompt] = self.sides(example.prompt, [], as_turns)
        return {self.prompt: prompt, self.truth: example.truth, **self.beside_row(example)}
