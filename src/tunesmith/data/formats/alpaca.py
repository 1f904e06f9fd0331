"""Rows of the Stanford Alpaca kind."""

from ..example import Message, dialogue
from ._beside import Dialogue
from ._prompted import asked
from ._turns import plain
from .base import Column, Maybe, Row, format_, only, text_in


@format_("alpaca")
class Alpaca(Dialogue):
    """instruction, output, and where they are there input, system and history (a list of earlier pairs)."""

    instruction: Column = "instruction"
    """Column of what is asked."""
    output: Column = "output"
    """Column of the answer."""
    input: Maybe = "input"
    """Column of what the instruction is about; joined to it by a line break."""
    history: Maybe = "history"
    """Column of earlier [question, answer] pairs."""

    @classmethod
    def told(cls, sample):
        if not sample.text("instruction"):
            return
        about = "context" if sample.text("context") and not sample.text("input") else "input"
        for output in ("output", "response"):
            if sample.text(output):
                yield cls.having(output=output, input=about)

    def read(self, row):
        turns = asked(row, self.instruction, self.input, self.history)
        answer = Message("assistant", text_in(row, self.output))
        return dialogue((*self.opened(row, turns), answer), **self.beside(row))

    def write(self, example, as_turns=False):
        only(example, self, "prompt", "answers", "tools", "media")
        turns = [turn for side in (example.prompt, *(answer.messages for answer in example.answers)) for turn in side]
        row: Row = {}
        if turns and self.system is not None and turns[0].content and plain(turns[0], "system"):
            row[self.system] = turns[0].content
        rest = turns[1:] if row else turns
        *earlier, (question, answer) = self.pairs(rest, len(example.answers))
        about: Row = {self.input: ""} if self.input else {}
        row = {**row, self.instruction: question, **about, self.output: answer}
        if earlier:
            if self.history is None:
                raise ValueError("alpaca cannot hold earlier turns, which have no column")
            row[self.history] = earlier
        return row | self.beside_row(example)

    def pairs(self, turns: list[Message], answers: int) -> list[list[str]]:
        """The turns two by two."""
        roles = ["user", "assistant"] * (len(turns) // 2)
        fits = len(turns) == len(roles) and all(plain(turn, role) for turn, role in zip(turns, roles, strict=False))
        if answers != 1 or not turns or not fits:
            raise ValueError(
                "alpaca holds a system message, then texts of user and assistant in turn, without calls, weights or"
                " thoughts; take messages"
            )
        return [[turns[n].content, turns[n + 1].content] for n in range(0, len(turns), 2)]
