"""Rows of the ShareGPT kind."""

from typing import ClassVar

from ..example import Message, dialogue
from .base import Format, format_, text_in
from .messages import turns


@format_("sharegpt")
class ShareGPT(Format):
    """A list of {from, value} with human and gpt in turn, and a system column where it is there."""

    conversations: str = "conversations"
    """Column of the list."""
    system: str = "system"
    """Column of the system message."""

    optional: ClassVar[tuple[str, ...]] = ("system",)

    def read(self, row):
        messages = turns(row.get(self.conversations), self.conversations, "from", "value", ROLES)
        if row.get(self.system) and messages[0].role != "system":
            messages = (Message("system", text_in(row, self.system)), *messages)
        return dialogue(messages)


ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
}
