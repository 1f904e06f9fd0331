"""Rows of the ShareGPT kind."""

from typing import ClassVar

from ..example import dialogue
from ._turns import CALLING, Chat, Style, answered
from .base import Column, format_, only


@format_("sharegpt")
class ShareGPT(Chat):
    """A list of {from, value} with human and gpt in turn, function_call and observation where tools are called."""

    conversations: Column = "conversations"
    """Column of the list."""

    style: ClassVar[Style] = Style(
        "from",
        "value",
        {"system": "system", "user": "human", "assistant": "gpt", "tool": "observation", CALLING: "function_call"},
    )

    @classmethod
    def told(cls, sample):
        yield from (cls.having(conversations=name) for name in ("conversations", "conversation") if sample.turns(name))

    def read(self, row):
        turns = answered(self.turns(row, self.conversations), f"column '{self.conversations}'")
        return dialogue(turns, **self.all_beside(row, self.conversations))

    def write(self, example, as_turns=False):
        only(example, self, "prompt", "answers", "tools", "media")
        return {self.conversations: self.whole(example), **self.beside_row(example)}
