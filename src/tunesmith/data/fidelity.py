"""What a chat template or a tokenizer makes of what was said that nobody meant."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from .example import Message
from .places import absent
from .writer import THOUGHT, Tools, Writer


def unfaithful(writer: Writer, messages: Sequence[Message], tools: Tools = ()) -> str | None:
    """How the text of a dialogue differs from what its messages say; None if each stands there unchanged, in order.

    The dialogue is written again with words of our own in place of what is said. What is around these is the
    template's; with what is said put between, it must be the text.
    """
    text = writer.text(messages, tools)
    word = absent(text)
    names = [f"{word}of{n}x" for n in range(len(messages))]
    around = writer.text([saying(message, name) for message, name in zip(messages, names, strict=True)], tools)
    at = 0
    for n, (message, name) in enumerate(zip(messages, names, strict=True)):
        whose = f"the {message.role}'s turn (message {n + 1})"
        ahead, found, around = around.partition(name)
        if not found:
            return f"the chat template of {writer.name} does not write {whose}"
        if name in around:
            return f"the chat template of {writer.name} writes {whose} more than once"
        if not text.startswith(ahead, at):
            return f"the chat template of {writer.name} writes what is around {whose} by what is said"
        at += len(ahead)
        said = message.content[len(thought_of(message)) :]
        if not text.startswith(said + around.partition(names[n + 1])[0] if n + 1 < len(names) else said + around, at):
            stripped = said.strip() != said and text.startswith(said.strip(), at)
            what = "takes the space off the ends of" if stripped else "changes what is said in"
            return f"the chat template of {writer.name} {what} {whose}"
        at += len(said)
    return unwritten_thought(writer, messages, text)
