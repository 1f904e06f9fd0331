"""What a chat template or a tokenizer makes of a dialogue that its writer did not mean."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Literal, NamedTuple

from ..example import Message
from .dialogue import Tools, Writer, spoken, thought_of
from .turns import absent


class Change(NamedTuple):
    """What a template does to a turn that its writer did not mean."""

    kind: Literal["drops", "repeats", "moves", "unthinks", "surrounds", "trims", "changes"]
    template: str
    """Whose it is."""
    role: str
    number: int
    """Which message it is, from 1 on."""

    def __str__(self) -> str:
        return f"the chat template of {self.template} {DONE[self.kind][0].format(self)}"

    @property
    def zh(self) -> str:
        """The same in Chinese."""
        return f"{self.template} 的聊天模板{DONE[self.kind][1].format(self)}"


DONE = {
    "drops": ("leaves out the {0.role}'s turn (message {0.number})", "丢弃了第 {0.number} 条消息（{0.role}）"),
    "repeats": (
        "writes more than once the {0.role}'s turn (message {0.number})",
        "把第 {0.number} 条消息（{0.role}）写了不止一次",
    ),
    "moves": ("moves the {0.role}'s turn (message {0.number})", "挪动了第 {0.number} 条消息（{0.role}）的位置"),
    "unthinks": (
        "leaves out what the assistant thinks (message {0.number})",
        "丢弃了助手的思考内容（第 {0.number} 条消息）",
    ),
    "surrounds": (
        "writes something else around the {0.role}'s turn (message {0.number}) for what it says",
        "因第 {0.number} 条消息（{0.role}）的内容而改写了它前后的文字",
    ),
    "trims": (
        "takes space off the ends of the {0.role}'s turn (message {0.number})",
        "去掉了第 {0.number} 条消息（{0.role}）首尾的空白",
    ),
    "changes": ("changes the {0.role}'s turn (message {0.number})", "改写了第 {0.number} 条消息（{0.role}）"),
}
"""Each kind of change in English and in Chinese."""


def unfaithful(writer: Writer, messages: Sequence[Message], tools: Tools = ()) -> Change | None:
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
            what = "repeats" if found else "moves" if name in other else "drops"
            return Change(what, writer.name, messages[n].role, n + 1)
        between.append(ahead)
        if thought_of(messages[n]) not in ahead:
            return Change("unthinks", writer.name, messages[n].role, n + 1)
    return changed(writer.name, messages, names, text, [*between, rest])


def changed(
    name: str, messages: Sequence[Message], turns: Iterable[int], text: str, between: list[str]
) -> Change | None:
    """How a text differs from what stands between the turns with what is said in these."""
    at = 0
    for n, (ahead, behind) in zip(turns, pairwise(between), strict=True):
        if not text.startswith(ahead, at):
            return Change("surrounds", name, messages[n].role, n + 1)
        at += len(ahead)
        said = spoken(messages[n])
        ways = [said, json.dumps(said, ensure_ascii=False)[1:-1]] if messages[n].role == "tool" else [said]
        kept = next((way for way in ways if text.startswith(way + behind, at)), None)
        if kept is None:
            trims = text.startswith(said.strip() + behind, at)
            return Change("trims" if trims else "changes", name, messages[n].role, n + 1)
        at += len(kept)
    return None


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
