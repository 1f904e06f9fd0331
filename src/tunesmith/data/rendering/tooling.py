"""Whether a chat template writes tools, calls and what tools answer: found out by names that it cannot know."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ..example import Message
from .dialogue import Tools, Writer
from .tokens import NoTarget
from .turns import absent

WHAT = {
    "tools": "the tools that may be called",
    "calls": "the calls that the assistant makes",
    "results": "what a tool answers",
}


class Tooling:
    """Looks once at each kind of dialogue, a kind being who speaks when, and with how many calls."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        self.fine: set[Any] = set()

    def check(self, messages: tuple[Message, ...], tools: Tools) -> None:
        """Raises NoTarget where the template would leave something out; finds out how it wants arguments."""
        if not tools and not any([message.calls or message.role == "tool" for message in messages]):
            return
        kind = (len(tools), *((message.role, not message.content, len(message.calls)) for message in messages))
        if kind in self.fine:
            return
        lost = self.lost(messages, tools, absent(str((messages, tools))))
        if lost:
            raise NoTarget(
                f"the chat template of {self.writer.name} does not write {WHAT[lost]};"
                " tools can be learnt only by a model whose template knows them"
            )
        self.fine.add(kind)

    def lost(self, messages: tuple[Message, ...], tools: Tools, word: str) -> str | None:
        """What of tools the template leaves out: a key of WHAT."""
        names = {name_of(tool): f"{word}tool{n}x" for n, tool in enumerate(tools)}
        given = [renamed(tool, names) for tool in tools]
        asked = tuple(disguised(message, f"{word}turn{n}") for n, message in enumerate(messages))
        text = self.writer.text(asked, given)
        wanted = list(words(asked, given, word))
        quoted = [one for what, one in wanted if what == "calls" and f"'{one}'" in text and f'"{one}"' not in text]
        if quoted and not self.writer.as_text:  # it wrote an object as Python does: it expects text
            self.writer.as_text = True
            text = self.writer.text(asked, given)
        return next((what for what, one in wanted if one not in text), None)


def name_of(tool: dict[str, Any]) -> Any:
    return tool.get("function", tool).get("name")


def renamed(tool: dict[str, Any], names: dict[Any, str]) -> dict[str, Any]:
    if "function" in tool:
        return tool | {"function": renamed(tool["function"], names)}
    return tool | {"name": names[tool.get("name")]}


def disguised(message: Message, word: str) -> Message:
    """A message whose calls and whose answer of a tool nobody has seen."""
    calls = tuple(
        replace(call, name=f"{word}call{n}x", arguments={**call.arguments, "seen": f"{word}is{n}x"})
        for n, call in enumerate(message.calls)
    )
    return replace(message, calls=calls, content=f"{word}says" if message.role == "tool" else message.content)


def words(messages: tuple[Message, ...], tools: Tools, word: str) -> Iterator[tuple[str, str]]:
    """What must stand in the text, and which key of WHAT it is for."""
    yield from (("tools", str(name_of(tool))) for tool in tools)
    for message in messages:
        for call in message.calls:
            yield from (("calls", said) for said in (call.name, call.arguments["seen"]))
        if message.role == "tool":
            yield "results", message.content
