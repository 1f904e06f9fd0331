"""What a chat template or a tokenizer makes of a dialogue that its writer did not mean."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

from ..example import Message
from .dialogue import THOUGHT, Tools, Writer
from .turns import absent


def unfaithful(writer: Writer, messages: Sequence[Message], tools: Tools = ()) -> str | None:
    """How the text of a dialogue differs from what its messages say; None if all of it stands there, in order.

    The dialogue is written again with words of our own in place of what is said. What stands between these is the
    template's; with what is said in their places, it must be the text.
    """
    text = writer.text(messages, tools)
    word = absent(text)
    names = {n: f"{word}of{n}x" for n, message in enumerate(messages) if spoken(message)}
    other = writer.text([saying(message, names.get(n, "")) for n, message in enumerate(messages)], tools)
    between: list[str] = []
    rest = other
    for n, name in names.items():
        ahead, found, rest = rest.partition(name)
        if not found or name in rest:
            what = "writes more than once" if found else "moves" if name in other else "leaves out"
            return f"the chat template of {writer.name} {what} the {messages[n].role}'s turn (message {n + 1})"
        between.append(ahead)
        if thought_of(messages[n]) not in ahead:
            return f"the chat template of {writer.name} leaves out what the assistant thinks (message {n + 1})"
    return changed(writer.name, messages, names, text, [*between, rest])


def changed(name: str, messages: Sequence[Message], turns: Iterable[int], text: str, between: list[str]) -> str | None:
    """How a text differs from what stands between the turns with what is said in these."""
    at = 0
    for n, (ahead, behind) in zip(turns, pairwise(between), strict=True):
        whose = f"the {messages[n].role}'s turn (message {n + 1})"
        if not text.startswith(ahead, at):
            return f"the chat template of {name} writes something else around {whose} for what it says"
        at += len(ahead)
        said = spoken(messages[n])
        ways = [said, json.dumps(said, ensure_ascii=False)[1:-1]] if messages[n].role == "tool" else [said]
        kept = next((way for way in ways if text.startswith(way + behind, at)), None)
        if kept is None:
            stripped = text.startswith(said.strip() + behind, at)
            return f"the chat template of {name} {'takes space off the ends of' if stripped else 'changes'} {whose}"
        at += len(kept)
    return None


def spoken(message: Message) -> str:
    """What is said, without what is thought before."""
    return THOUGHT.sub("", message.content) if message.role == "assistant" else message.content


def thought_of(message: Message) -> str:
    block = THOUGHT.match(message.content) if message.role == "assistant" else None
    inside = block[0].strip().removeprefix("<think>").removesuffix("</think>") if block else ""
    return (message.thinking or inside).strip()


def saying(message: Message, name: str) -> Message:
    """A message that thinks what it did, and says something else."""
    said = spoken(message)
    return replace(message, content=message.content[: len(message.content) - len(said)] + name) if said else message


def injected(writer: Writer, messages: Sequence[Message]) -> str | None:
    """Which turn holds the text of a special token, which ends turns or begins others; None if none does."""
    for n, message in enumerate(messages):
        if found := writer.special.search(message.content) or writer.special.search(message.thinking or ""):
            return (
                f"the {message.role}'s turn (message {n + 1}) holds the text {found[0]!r},"
                " which the tokenizer takes for its special token"
            )
    return None
