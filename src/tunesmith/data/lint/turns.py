"""Who speaks when, and what tools are called: in the rows as they stand, where these cannot be read."""

import json
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from ..example import Call
from .base import Item, Rule, Said, Simple, rule

KEYS = (("role", "content"), ("from", "value"))
AS = {"human": "user", "gpt": "assistant", "bot": "assistant", "bard": "assistant", "chatgpt": "assistant"}
AS |= {"model": "assistant", "function_call": "assistant", "tool_call": "assistant", "developer": "system"}
AS |= {"observation": "tool", "function": "tool", "tool_response": "tool", "ipython": "tool"}
CALLING = frozenset({"function_call", "tool_call"})
APART = {"chosen", "rejected", "completion"}
"""Columns that have the last turn beside the list."""
ROLES = AS.keys() | {"system", "user", "assistant", "tool"}


def lists(item: Item) -> Iterator[list[dict[str, Any]]]:
    """The lists of turns in a row as it stands."""
    for value in item.row.values.values():
        turns = value if isinstance(value, list) and all(isinstance(turn, dict) for turn in value) else []
        if any(set(keys) <= turn.keys() for keys in KEYS for turn in turns):
            yield turns


def role_of(turn: dict[str, Any]) -> Any:
    return turn.get("role", turn.get("from"))


def unknown(item: Item) -> Said | None:
    """The first turn whose role nobody knows."""
    for turns in lists(item):
        for place, turn in enumerate(turns, 1):
            role = role_of(turn)
            if not isinstance(role, str) or role not in ROLES:
                return Said(f"turn {place} has the role {role!r:.40}", f"第 {place} 轮的角色是 {role!r:.40}")
    return None


@rule("unknown-role")
class UnknownRole(Rule):
    """A turn's role is none that is known, so the row cannot be read."""

    severity = "error"
    zh = "某一轮的角色无法识别，因此该行无法读取。"
    explained = Said(
        "Roles are system, user, assistant and tool, or the names that ShareGPT gives them (human, gpt, ...); a role"
        " of"
        " another name would have to be guessed. Rename it, or say in data.format which name stands for which role.",
        "角色只有 system、user、assistant、tool，或 ShareGPT 的叫法（human、gpt 等），其他名称只能猜测。"
        "请改名，或在 data.format 中说明名称与角色的对应关系。",
    )

    def watch(self, renderer, targets):
        return Simple(lambda item, number: unknown(item) if item.example is None and item.fault else None)


@lru_cache(maxsize=4096)
def broken_order(roles: tuple[str, ...], calling: tuple[bool, ...]) -> Said | None:
    """Why the roles of a dialogue do not follow each other; of each turn, whether it calls tools."""
    before, called = "", False
    for place, (role, calls) in enumerate(zip(roles, calling, strict=True), 1):
        wrong = (
            (role == "system" and place > 1)
            or (role == before and role in ("user", "assistant") and not called)
            or (role == "assistant" and before in ("", "system"))
            or (role == "tool" and before not in ("tool", "assistant"))
            or (role == "user" and before == "tool")
        )
        if wrong:
            en, zh = (f"after {before}", f"在 {before} 之后") if before else ("at the beginning", "在开头")
            return Said(f"turn {place} is the {role}'s, {en}", f"第 {place} 轮是 {role}，{zh}")
        before, called = role, calls
    return None


@rule("role-order")
class RoleOrder(Rule):
    """The roles of a dialogue do not follow each other as they must, or the last turn is not the assistant's."""

    zh = "对话中各角色的先后顺序不对，或最后一轮不是助手的发言。"
    explained = Said(
        "A dialogue is a system turn or none, then user and assistant by turns; a tool speaks after the assistant has"
        " called it, and the assistant speaks last. Many templates refuse any other order, others write what the model"
        " has never seen. A turn was probably lost: put it back, or join neighbours of one role.",
        "对话应当是：至多一个 system，随后 user 与 assistant 轮流；tool 在 assistant 调用之后发言，最后一轮属于"
        " assistant。"
        "许多模板拒绝其他顺序，另一些则写出模型从未见过的文本。多半是丢了一轮：请补上，或合并相邻的同角色发言。",
    )

    def watch(self, renderer, targets):
        return Simple(self.look)

    def look(self, item: Item, number: int = 0) -> Said | None:
        if item.example is None:
            return None if unknown(item) or not item.fault else raw_order(item)
        for answer in item.example.answers:
            turns = item.example.prompt + answer.messages
            if said := broken_order(tuple([turn.role for turn in turns]), tuple([turn.calls != () for turn in turns])):
                return said
        return None


def raw_order(item: Item) -> Said | None:
    """The same of a row that could not be read, which may be why."""
    found = list(lists(item))
    if len(found) == 1 and not APART & item.row.values.keys():
        [turns] = found
        said_to_be = [role_of(turn) for turn in turns]
        called = [bool(turn.get("tool_calls")) or role in CALLING for turn, role in zip(turns, said_to_be, strict=True)]
        roles = tuple([AS.get(role, role) for role in said_to_be])
        if said := broken_order(roles, tuple(called)):
            return said
        if roles[-1] != "assistant":
            return Said(f"the last turn is the {roles[-1]}'s", f"最后一轮是 {roles[-1]} 的发言")
    return None


@rule("tool-call")
class ToolCall(Rule):
    """A tool call, or a list of tools, is not the JSON that it should be, or calls a tool that is not offered."""

    severity = "error"
    zh = "工具调用或工具列表不是应有的 JSON，或调用了未提供的工具。"
    explained = Said(
        "The model would learn calls that no program can read. A call is an object with a name and arguments, and"
        " these"
        " an object; its name stands in the row's tools. Mend the row or remove it.",
        "模型会学到程序无法解析的调用。一次调用是含 name 与 arguments 的对象，arguments 也是对象，name"
        " 应出现在该行的 tools 中。"
        "请修正或删除该行。",
    )

    def watch(self, renderer, targets):
        return Simple(self.look)

    def look(self, item: Item, number: int = 0) -> Said | None:
        example = item.example
        if example is None:
            return broken_call(item) if item.fault else None
        if not example.tools:
            return None
        offered = {name for tool in example.tools if (name := offered_name(tool))}
        for message in item.turns:
            for call in message.calls:
                if offered and call.name not in offered:
                    return not_offered(call, offered)
        return None


def not_offered(call: Call, offered: set[str]) -> Said:
    names = ", ".join(sorted(offered))
    return Said(
        f"calls {call.name!r:.60}, which is not among {names:.120}", f"调用了 {call.name!r:.60}，不在 {names:.120} 之中"
    )


def offered_name(tool: dict[str, Any]) -> str | None:
    inner = tool.get("function")
    name = (inner if isinstance(inner, dict) else tool).get("name")
    return name if isinstance(name, str) else None


def broken_call(item: Item) -> Said | None:
    """What is wrong with the calls or the tools of a row that could not be read."""
    tools = item.row.values.get("tools")
    if isinstance(tools, str) and tools.strip() and (why := not_json(tools, (list, dict))):
        return Said(f"tools: {why.en}", f"tools：{why.zh}")
    for turns in lists(item):
        for place, turn in enumerate(turns, 1):
            if why := turn_fault(turn):
                return Said(f"the call in turn {place} {why.en}", f"第 {place} 轮的调用{why.zh}")
    return None


def turn_fault(turn: dict[str, Any]) -> Said | None:
    if role_of(turn) in CALLING:
        return not_json(turn.get("value", turn.get("content")), (dict, list))
    calls = turn.get("tool_calls")
    for call in calls if isinstance(calls, list) else []:
        inner = call.get("function", call) if isinstance(call, dict) else None
        if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
            return Said("has no name", "没有 name")
        given = inner.get("arguments")
        if isinstance(given, str) and (why := not_json(given, (dict,))):
            return why
    return None


def not_json(value: Any, kinds: tuple[type, ...]) -> Said | None:
    """Why a text is not JSON of such a kind."""
    if not isinstance(value, str):
        return None if isinstance(value, kinds) else Said("is no JSON text", "不是 JSON 文本")
    try:
        read = json.loads(value)
    except ValueError as error:
        why = re.sub(r": line .*", "", str(error))
        return Said(f"is not JSON: {why}", f"不是 JSON：{why}")
    names = " or ".join("object" if kind is dict else "list" for kind in kinds)
    return None if isinstance(read, kinds) else Said(f"is not a JSON {names}", f"不是 JSON {names}")


@rule("unreadable")
class Unreadable(Rule):
    """The row cannot be read as the format says."""

    severity = "error"
    zh = "该行无法按所选格式读取。"
    explained = Said(
        "A column is missing or holds something else, or the line is broken. Mend it, choose another data.format, or"
        " leave such rows out with data.on_bad_row=skip.",
        "缺少某列，或列中内容不对，或该行已损坏。请修正，改用别的 data.format，或用 data.on_bad_row=skip"
        " 跳过这样的行。",
    )

    def watch(self, renderer, targets):
        return Simple(self.look)

    def look(self, item: Item, number: int = 0) -> Said | None:
        if item.example is not None or not item.fault or unknown(item) or raw_order(item) or broken_call(item):
            return None
        why = item.fault.removeprefix(f"{item.row.origin}: ")
        return Said(why, f"无法读取，原因：{why}")
