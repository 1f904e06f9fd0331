"""Rows of a prompt and what follows it."""

from ..example import Message, dialogue
from .base import Format, format_, text_in
from .messages import ROLES, turns


@format_("completion")
class Completion(Format):
    """prompt and completion, each a text or a list of {role, content}."""

    prompt: str = "prompt"
    """Column of the prompt."""
    completion: str = "completion"
    """Column of the answer."""

    def read(self, row):
        prompt, completion = row.get(self.prompt), row.get(self.completion)
        if isinstance(prompt, list) and isinstance(completion, list):
            return dialogue(
                turns([*prompt, *completion], f"{self.prompt} + {self.completion}", "role", "content", ROLES)
            )
        asked, answer = text_in(row, self.prompt), text_in(row, self.completion)
        return dialogue((Message("user", asked), Message("assistant", answer)))
