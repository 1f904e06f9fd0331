"""Rows of the Stanford Alpaca kind."""

from typing import ClassVar

from ..example import Message, dialogue
from .base import Format, format_, text_in


@format_("alpaca")
class Alpaca(Format):
    """instruction, output, and where they are there input, system and history (a list of earlier pairs)."""

    instruction: str = "instruction"
    """Column of what is asked."""
    output: str = "output"
    """Column of the answer."""
    input: str = "input"
    """Column of what the instruction is about; joined to it by a line break."""
    system: str = "system"
    """Column of the system message."""
    history: str = "history"
    """Column of earlier [question, answer] pairs."""

    optional: ClassVar[tuple[str, ...]] = ("input", "system", "history")

    def read(self, row):
        asked = [text_in(row, self.instruction)]
        if row.get(self.input):
            asked.append(text_in(row, self.input))
        system = (Message("system", text_in(row, self.system)),) if row.get(self.system) else ()
        earlier = tuple(turn for pair in row.get(self.history) or () for turn in self.turns(pair))
        turns = Message("user", "\n".join(asked)), Message("assistant", text_in(row, self.output))
        return dialogue((*system, *earlier, *turns))

    def turns(self, pair) -> tuple[Message, Message]:
        match pair:
            case [str(question), str(answer)]:
                return Message("user", question), Message("assistant", answer)
        raise ValueError(f"column '{self.history}' must be a list of [question, answer] pairs (got {pair!r})")
