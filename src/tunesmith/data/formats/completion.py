"""Rows of a prompt and what follows it."""

from dataclasses import replace

from ..example import Example, dialogue
from ._prompted import Messages, Prompted
from .base import Column, format_, only


@format_("completion")
class Completion(Prompted):
    """prompt and completion, each a text or a list of turns; what the assistant says in the prompt is not learnt."""

    prompt: Column = "prompt"
    """Column of the prompt."""
    completion: Column = "completion"
    """Column of the answer."""

    @classmethod
    def told(cls, sample):
        if sample.said("prompt") and sample.said("completion"):
            yield cls()

    def read(self, row):
        prompt = self.opened(row, tuple(map(settled, self.side(row, self.prompt, "user"))))
        answer = self.answer(row, self.completion)
        return dialogue((*prompt, *answer), **self.all_beside(row, self.prompt, self.completion))

    def write(self, example: Example, as_turns=False):
        only(example, self, "prompt", "answers", "tools", "media")
        self.whole(example)
        turns = (*example.prompt, *example.answers[0].messages)
        prompt, answer = self.sides(*parted(turns), as_turns)
        return {self.prompt: prompt, self.completion: answer, **self.beside_row(example)}


def settled(message):
    """A turn of a prompt, out of which nothing of the assistant's is learnt unless it has a weight."""
    return replace(message, weight=0.0) if message.role == "assistant" and message.weight is None else message


def parted(turns: Messages) -> tuple[Messages, list[Messages]]:
    """The turns up to the first that is learnt as a matter of course, and from there on."""
    usual = (n for n, turn in enumerate(turns) if turn.role == "assistant" and turn.weight is None)
    first = next(usual, len(turns) - 1)
    return turns[:first], [turns[first:]]
