"""Rows of any columns, made into a prompt and an answer."""

import re
from typing import ClassVar

from ..example import Message, dialogue
from .base import Format, format_, text_in


@format_("template")
class Template(Format):
    """Any columns: {column} in the texts below stands for its value."""

    prompt: str = "{text}"
    """What the user says."""
    answer: str = "{label}"
    """What the assistant should say."""
    system: str | None = None
    """What the system message says, if there is one."""

    detected: ClassVar[bool] = False

    def columns(self):
        return list(dict.fromkeys(re.findall(FIELD, f"{self.system or ''}{self.prompt}{self.answer}")))

    def read(self, row):
        def fill(text: str) -> str:
            return re.sub(FIELD, lambda field: text_in(row, field[1]), text)

        system = (Message("system", fill(self.system)),) if self.system else ()
        return dialogue((*system, Message("user", fill(self.prompt)), Message("assistant", fill(self.answer))))


FIELD = r"\{(\w+)\}"
