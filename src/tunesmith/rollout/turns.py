"""Dialogues as judges and rewards read them: turns as formats write them, answers as texts."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ..data.example import Answer, Example, Message
from ..data.formats._turns import Chat
from ..rewards.base import Said, Turn

CHAT = Chat()


def turns(messages: Sequence[Message]) -> tuple[Turn, ...]:
    """Turns as formats write them."""
    return tuple(CHAT.turn(message) for message in messages)


def text(answer: Answer) -> str:
    """An answer as one text: of several turns, or of calls, each turn as JSON."""
    if len(answer.messages) == 1 and not answer.messages[0].calls:
        return answer.messages[0].content
    return "\n".join(json.dumps(turn, ensure_ascii=False) for turn in turns(answer.messages))


def answer(content: str, ended: bool = True) -> Answer:
    return Answer((Message("assistant", content, ended=ended),))


def verdict(name: str, value: str | int) -> str:
    """What a judge says that gives its verdict and no reason."""
    return json.dumps({name: value})


def said(example: Example, completion: str, tokens: int, stopped: bool) -> Said:
    """What a model has answered to an example, for rewards to score; what is right is its truth, or else its answer."""
    prompt = example.prompt or (Message("user", example.text or ""),)  # a text is gone on with
    asked = next((message.content for message in reversed(prompt) if message.role == "user"), "")
    truth = example.gold if example.truth is None else example.truth
    return Said(asked, turns(prompt), completion, truth, example.others, tokens, stopped)
