"""Dialogues as lists of turns: how a turn is read and written, whichever words a file has for it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from math import isfinite
from typing import Any, ClassVar

from ...config.record import record
from ..example import Call, Example, Message
from ._beside import KINDS, MARKS, Dialogue
from .base import Row, json_in, json_out, list_in, shown

CALLING = "function_call"
"""The role of a turn whose text is the JSON of what it calls."""
ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
    "bard": "assistant",
    "tool": "tool",
    "observation": "tool",
    "function": "tool",
    "function_call": CALLING,
    "tool_call": CALLING,
}
"""The words for roles that are understood everywhere."""
THOUGHT = re.compile(r"\s*<think>.*?</think>\s*", re.DOTALL)
READ = {
    "tool_calls", "function_call", "reasoning_content", "thinking", "reasoning", "name", "tool_call_id", "weight",
    "train", "ended",
}  # fmt: skip
"""Keys of a turn that are read beside its role and its text."""


SPEAKERS = ("system", "user", "assistant", "tool")


@dataclass(frozen=True)
class Style:
    """The words in which turns are written."""

    role: str = "role"
    content: str = "content"
    roles: dict[str, str] = field(default_factory=lambda: {role: role for role in SPEAKERS})


@record
class Chat(Dialogue):
    """What every format has that may have lists of turns: words for the roles."""

    role_tag: str | None = None
    """Key of a turn's role; `role` or `from` unless given."""
    content_tag: str | None = None
    """Key of a turn's text; `content` or `value` unless given."""
    user_tag: str | None = None
    """What the user's role is called, beside the usual words."""
    assistant_tag: str | None = None
    """What the assistant's role is called."""
    observation_tag: str | None = None
    """What the role of a tool's turn is called."""
    function_tag: str | None = None
    """What the role of a turn is called that is the JSON of a call."""
    system_tag: str | None = None
    """What the system's role is called."""

    style: ClassVar[Style] = Style()

    @cached_property
    def roles(self) -> dict[str, str]:
        """Every word for a role that is understood, and what it means."""
        said = {
            self.system_tag: "system",
            self.user_tag: "user",
            self.assistant_tag: "assistant",
            self.observation_tag: "tool",
            self.function_tag: CALLING,
        }
        return ROLES | {word: role for word, role in said.items() if word}

    @cached_property
    def written(self) -> Style:
        """The words in which turns are written."""
        usual = self.style
        said = {
            "system": self.system_tag,
            "user": self.user_tag,
            "assistant": self.assistant_tag,
            "tool": self.observation_tag,
            CALLING: self.function_tag,
        }
        roles = usual.roles | {role: word for role, word in said.items() if word}
        return Style(self.role_tag or usual.role, self.content_tag or usual.content, roles)

    # Reading

    def turns(self, row: Row, column: str) -> tuple[Message, ...]:
        """The turns of a column, after the system message that stands in a column of its own."""
        said = list_in(row, column)
        if not said:
            raise ValueError(f"column '{column}' must be a list of turns (it is empty)")
        return self.opened(row, self.messages_in(said))

    def messages_in(self, turns: list[Any]) -> tuple[Message, ...]:
        return tuple(self.message(turn) for turn in turns)

    def message(self, turn: Any) -> Message:
        """One turn."""
        if not isinstance(turn, dict):
            raise ValueError(f"a turn must be an object such as {{role, content}} (got {shown(turn)})")
        role_key, content_key = key(turn, self.role_tag, ("role", "from")), self.content_key(turn)
        word = turn.get(role_key)
        role = self.roles.get(word) if isinstance(word, str) else None
        if role is None:
            raise ValueError(f"unknown {role_key} {shown(word)}; known: {', '.join(self.roles)}")
        if len(turn) == 2 and content_key in turn and role != CALLING:  # as most turns are, with nothing else to read
            return Message(role, spoken(turn, content_key, False))
        calls, thinking = calls_in(turn), thinking_in(turn)
        content = spoken(turn, content_key, bool(calls))
        if role == CALLING:
            role, (content, calls) = "assistant", called(content)
        if calls and role != "assistant":
            raise ValueError(f"a turn of {word} cannot call tools; only the assistant's can")
        name, call_id = (named(turn, column) for column in ("name", "tool_call_id"))
        unread = [key for key in turn if key not in READ and key not in (role_key, content_key)]
        said = tuple(str(key) for key in unread if turn[key] not in (None, "", []))
        return Message(role, content, weight_in(turn), thinking, calls, name, call_id, ended_in(turn, role), said)

    def content_key(self, turn: dict[str, Any]) -> str:
        return key(turn, self.content_tag, ("content", "value"))

    def all_beside(self, row: Row, *columns: str | None) -> dict[str, Any]:
        """The tools and the media of a row, in their own columns or in the turns of these."""
        lists = [row[column] for column in columns if column and isinstance(row.get(column), list)]
        turns = [turn for several in lists for turn in several if isinstance(turn, dict)]
        return self.beside(row, turns, self.content_key(turns[0]) if turns else "content")

    # Writing

    def turn(self, message: Message) -> dict[str, Any]:
        """A turn as it stands in a list."""
        style = self.written
        made: dict[str, Any] = {style.role: style.roles[message.role], style.content: message.content}
        if message.calls and CALLING in style.roles:
            made = {style.role: style.roles[CALLING], style.content: self.calling(message)}
        elif message.calls:
            made["tool_calls"] = [openai_call(call) for call in message.calls]
        more = {
            "reasoning_content": message.thinking,
            "name": message.name,
            "tool_call_id": message.call_id,
            "weight": message.weight,
            "ended": None if message.ended else False,
        }
        return made | {key: value for key, value in more.items() if value is not None}

    def calling(self, message: Message) -> str:
        """The text of a turn that calls tools."""
        if message.content and not THOUGHT.fullmatch(message.content):
            raise ValueError(f"{self.name} cannot hold a turn that both speaks and calls a tool")
        calls = [
            {"name": call.name, "arguments": call.arguments} | ({"id": call.id} if call.id is not None else {})
            for call in message.calls
        ]
        return message.content + json_out(calls[0] if len(calls) == 1 else calls)

    def whole(self, example: Example) -> list[dict[str, Any]]:
        """All turns of a dialogue that has one answer, of one turn."""
        if len(example.answers) != 1 or len(example.answers[0].messages) != 1:
            raise ValueError(f"{self.name} holds dialogues that end with one answer, of one turn; take another format")
        turns = answered((*example.prompt, *example.answers[0].messages), "a dialogue")
        return [self.turn(message) for message in turns]


def key(turn: dict[str, Any], said: str | None, usual: tuple[str, str]) -> str:
    """The key under which a turn has its role, or its text."""
    if said:
        return said
    first, second = usual
    if second not in turn:
        return first
    there = [name for name in usual if turn.get(name) is not None]
    if len(there) > 1:
        tags = "role_tag" if "role" in usual else "content_tag"
        raise ValueError(f"a turn has both {' and '.join(there)}; say which counts with data.format.{tags}")
    return there[0] if there else next((name for name in usual if name in turn), usual[0])


def spoken(turn: dict[str, Any], column: str, calls: bool) -> str:
    """The text of a turn; of a list of parts, all texts, with a mark where one of the media stands."""
    content = turn.get(column)
    if isinstance(content, list):
        return "".join(part_in(part) for part in content)
    if content is None and calls:
        return ""
    if not isinstance(content, str):
        raise ValueError(f"a turn must have text in '{column}' (got {shown(content)})")
    return content


def part_in(part: Any) -> str:
    match part:
        case str(text) | {"type": "text" | "input_text" | "output_text", "text": str(text)}:
            return text
        case {"type": str(kind)} if kind in KINDS:
            return MARKS[KINDS[kind]]
    raise ValueError(f"a part of a turn must be text or one of {', '.join(KINDS)} (got {shown(part)})")


def calls_in(turn: dict[str, Any]) -> tuple[Call, ...]:
    """What a turn calls, as OpenAI writes it, today or as it used to."""
    calls = turn.get("tool_calls") or []
    old = turn.get("function_call")
    if isinstance(calls, str):
        calls = json_in(calls, "tool_calls")
    if not isinstance(calls, list):
        raise ValueError(f"tool_calls must be a list (got {shown(calls)})")
    return tuple(call_in(call) for call in [*calls, *([old] if old else [])])


def call_in(call: Any) -> Call:
    """One call: {name, arguments}, or that as the `function` of an object with an id."""
    inner = call.get("function") if isinstance(call, dict) and call.get("function") is not None else call
    match inner:
        case {"name": str(name)} if name:
            arguments = inner.get("arguments", inner.get("parameters"))
        case _:
            raise ValueError(f"a tool call must be an object with name and arguments (got {shown(call)})")
    if isinstance(arguments, str):
        arguments = json_in(arguments, f"the arguments of the call of '{name}'")
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        raise ValueError(f"the arguments of the call of '{name}' must be an object (got {shown(arguments)})")
    return Call(name, arguments, named(call, "id"))


def called(text: str) -> tuple[str, tuple[Call, ...]]:
    """A turn that is the JSON of one call or of several: what it thinks before, and the calls."""
    thought = THOUGHT.match(text)
    before = thought[0] if thought else ""
    calls = json_in(text[len(before) :], "a turn that calls a tool")
    found = tuple(call_in(call) for call in (calls if isinstance(calls, list) else [calls]))
    if not found:
        raise ValueError("a turn that calls a tool calls none")
    return before, found


def openai_call(call: Call) -> dict[str, Any]:
    function = {"name": call.name, "arguments": json_out(call.arguments)}
    return ({"id": call.id} if call.id is not None else {}) | {"type": "function", "function": function}


def thinking_in(turn: dict[str, Any]) -> str | None:
    said = {name: turn[name] for name in ("reasoning_content", "thinking", "reasoning") if turn.get(name) is not None}
    if len(said) > 1 and len(set(map(str, said.values()))) > 1:
        raise ValueError(f"a turn thinks differently in {' and '.join(said)}; leave one")
    thought = next(iter(said.values()), None)
    if thought is not None and not isinstance(thought, str):
        raise ValueError(f"what a turn thinks must be text (got {shown(thought)})")
    return thought


def named(turn: dict[str, Any], column: str) -> str | None:
    value = turn.get(column)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"'{column}' must be text (got {shown(value)})")
    return value


def weight_in(turn: dict[str, Any]) -> float | None:
    """How much a turn counts: its weight, or `train` as 1 or 0."""
    weight, train = turn.get("weight"), turn.get("train")
    if train is not None and not isinstance(train, bool):
        raise ValueError(f"'train' must be true or false (got {shown(train)})")
    if weight is None:
        return None if train is None else float(train)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not isfinite(weight) or weight < 0:
        raise ValueError(f"'weight' must be a number of at least 0 (got {shown(weight)})")
    if train is not None and train != bool(weight):
        raise ValueError(f"a turn says train: {str(train).lower()} and weight: {weight}; leave either out")
    return float(weight)


def ended_in(turn: dict[str, Any], role: str) -> bool:
    """Whether a turn came to its end; false of one that was cut off."""
    ended = True if turn.get("ended") is None else turn["ended"]
    if not isinstance(ended, bool) or (not ended and role != "assistant"):
        raise ValueError(f"'ended' must be true, or false of an assistant's turn that was cut off (got {shown(ended)})")
    return ended


def plain(message: Message, role: str) -> bool:
    """Whether a turn is of this role and says nothing but its text."""
    return message == Message(role, message.content)


def answered(messages: tuple[Message, ...], what: str) -> tuple[Message, ...]:
    """The turns, the last of which is the assistant's."""
    if messages[-1].role != "assistant":
        raise ValueError(f"{what} must end with an assistant's turn, the answer (ends with {messages[-1].role})")
    return messages
