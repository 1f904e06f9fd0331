"""Rows of the OpenAI kind."""

from ..example import Message, dialogue
from .base import Format, format_


@format_("messages")
class Messages(Format):
    """A list of {role, content}; `train: false` or `weight: 0` beside them keeps an answer out of the targets."""

    messages: str = "messages"
    """Column of the list."""

    def read(self, row):
        return dialogue(turns(row.get(self.messages), self.messages, "role", "content", ROLES))


ROLES = {role: role for role in ("system", "user", "assistant")} | {"developer": "system"}


def turns(value, column: str, role: str, content: str, roles: dict[str, str]) -> tuple[Message, ...]:
    """A list of turns, checked: known roles, text, and an assistant's turn at the end."""
    if not isinstance(value, list) or not value:
        raise ValueError(f"column '{column}' must be a list of {{{role}, {content}}} (got {value!r})")
    messages = tuple(turn(item, role, content, roles) for item in value)
    if messages[-1].role != "assistant":
        raise ValueError(f"column '{column}' must end with an assistant's turn (ends with {messages[-1].role})")
    return messages


def turn(item, role: str, content: str, roles: dict[str, str]) -> Message:
    if not isinstance(item, dict) or not isinstance(item.get(content), str):
        raise ValueError(f"a turn must be {{{role}, {content}}} with text in {content} (got {item!r})")
    if item.get(role) not in roles:
        raise ValueError(f"unknown {role} {item.get(role)!r}; known: {', '.join(roles)}")
    weight = 0 if item.get("train") is False else item.get("weight")
    return Message(roles[item[role]], item[content], weight)
