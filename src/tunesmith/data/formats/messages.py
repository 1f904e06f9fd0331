"""Rows of the OpenAI kind."""

from ..example import dialogue
from ._turns import Chat, answered
from .base import Column, format_, only


@format_("messages")
class Messages(Chat):
    """A list of {role, content}, with tool_calls and tool turns where there are any; `train: false` or `weight: 0`
    beside them keeps a turn out of the targets."""

    messages: Column = "messages"
    """Column of the list."""

    @classmethod
    def told(cls, sample):
        if sample.turns("messages"):
            yield cls()

    def read(self, row):
        turns = answered(self.turns(row, self.messages), f"column '{self.messages}'")
        return dialogue(turns, **self.all_beside(row, self.messages))

    def write(self, example, as_turns=False):
        only(example, self, "prompt", "answers", "tools", "media")
        return {self.messages: self.whole(example), **self.beside_row(example)}
