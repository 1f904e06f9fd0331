"""Rows in which a prompt stands apart from what answers it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...config.record import record
from ..example import Message
from ._turns import Chat, plain
from .base import Row, given, list_in, shown, text_in

Messages = tuple[Message, ...]


@record
class Prompted(Chat):
    """What formats have in common that have a prompt and answers, each a text or a list of turns."""

    def side(self, row: Row, column: str, role: str) -> Messages:
        """One side of a row: a text is one turn of this role."""
        value = row.get(column)
        if isinstance(value, list):
            return self.messages_in(value)
        if isinstance(value, dict):
            return (self.message(value),)
        return (Message(role, text_in(row, column)),)

    def answer(self, row: Row, column: str) -> Messages:
        """The side of the assistant."""
        turns = self.side(row, column, "assistant")
        if not turns or turns[-1].role != "assistant":
            ends = turns[-1].role if turns else "nothing"
            raise ValueError(f"column '{column}' must end with an assistant's turn, the answer (ends with {ends})")
        return turns

    def sides(self, prompt: Messages, answers: Sequence[Messages], as_turns: bool) -> list[Any]:
        """A prompt and answers as they stand in columns: as texts if these say all of it."""
        short = len(prompt) == 1 and plain(prompt[0], "user")
        if short and not as_turns and all(len(turns) == 1 and plain(turns[0], "assistant") for turns in answers):
            return [turns[0].content for turns in (prompt, *answers)]
        for turns in answers:
            if not turns or turns[0].role in ("system", "user") or turns[-1].role != "assistant":
                raise ValueError(
                    f"{self.name} needs answers that begin after the user's turns and end with an assistant's"
                )
        return [[self.turn(message) for message in turns] for turns in (prompt, *answers)]


def asked(row: Row, instruction: str, about: str | None, history: str | None) -> Messages:
    """What is asked in columns of texts: earlier pairs, then an instruction and what it is about."""
    texts = [text_in(row, instruction)]
    if about is not None and given(row, about):
        texts.append(text_in(row, about))
    pairs = list_in(row, history) if history is not None and given(row, history) else []
    earlier = (turn for pair in pairs for turn in exchange(pair, str(history)))
    return (*earlier, Message("user", "\n".join(texts)))


def exchange(pair: Any, column: str) -> Messages:
    match pair:
        case [str(question), str(answer)]:
            return Message("user", question), Message("assistant", answer)
    raise ValueError(f"column '{column}' must be a list of [question, answer] pairs (got {shown(pair)})")
