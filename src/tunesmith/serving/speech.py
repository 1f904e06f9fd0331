"""What an answer's text means: something said, or tools called, in the form in which the chat template writes calls."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from ..data.example import Call, Message
from ..data.rendering.render import Renderer
from ..data.rendering.tooling import name_of
from ..data.rendering.turns import absent
from ..errors import DataError
from ..model.ends import ends_by
from .fault import bad
from .grammar import form, held, schema_grammar
from .row import Grammar
from .wire import Chat

ASK = Message("user", "?")


@dataclass(frozen=True)
class Form:
    """How a template writes a call: what stands around its JSON, and what the arguments are called in it."""

    before: str = ""
    after: str = ""
    arguments: str = "arguments"


def form_of(renderer: Renderer) -> Form | None:
    """How the renderer's template writes calls, seen of one that it writes; None if it writes none."""
    name, key = "seenname", "seenkey"
    called = Message("assistant", "", calls=(Call(name, {key: "seenvalue"}, "call00001"),))
    try:
        asked = renderer.text((ASK,), answer=True)
        text = renderer.text((ASK, called))
    except DataError:
        return None
    rest = text[len(asked) :] if text.startswith(asked) else text
    rest = renderer.writer.special.split(rest)
    part = next((one for one in rest if name in one and key in one), "")
    found = first_call(part, {name})
    if not found:
        return None
    start, end, call = found
    arguments = next((one for one in ("arguments", "parameters") if one in call), "arguments")
    return Form(part[:start].lstrip(), part[end:].rstrip(), arguments)


def first_call(text: str, names: set[str]) -> tuple[int, int, dict[str, Any]] | None:
    """The first JSON object of a text that calls one of these, and where it stands."""
    at = text.find("{")
    while at >= 0:
        try:
            value, end = json.JSONDecoder().raw_decode(text, at)
        except ValueError:
            value, end = None, at + 1
        except RecursionError:  # nested so deep that no tool could want it, and so is what it begins with
            return None
        if isinstance(value, dict) and called(value, names):
            return at, end, value
        at = text.find("{", at + 1)
    return None


def called(value: dict[str, Any], names: set[str]) -> bool:
    given = value.get("arguments", value.get("parameters"))
    return isinstance(value.get("name"), str) and value["name"] in names and isinstance(given, dict)


class Speech:
    """What one request wants its answers to be. Raises Fault for tools that cannot be."""

    def __init__(self, said: Chat, renderer: Renderer, tokenizer: Any) -> None:
        self.said, self.renderer, self.tokenizer = said, renderer, tokenizer
        self.tools = [checked(tool, n) for n, tool in enumerate(said.tools or ())]
        self.names = {str(name_of(tool)) for tool in self.tools}
        self.forced, self.named = self.choice()
        self.shown: tuple[dict[str, Any], ...] = ()
        self.form = Form()
        if self.tools and said.tool_choice != "none":
            self.look()

    def choice(self) -> tuple[set[str], bool]:
        """The tools of which one must be called, and whether the client named it."""
        asked = self.said.tool_choice
        if asked is not None and not self.tools and asked not in ("none", "auto"):
            raise bad("'tool_choice': needs tools", "tool_choice")
        if asked in (None, "auto", "none"):
            return set(), False
        if asked == "required":
            return self.names, False
        inner = asked.get("function") if isinstance(asked, dict) else None
        name = inner.get("name") if isinstance(inner, dict) else None
        if not isinstance(name, str) or name not in self.names:
            raise bad("'tool_choice': must be none, auto, required or one of the tools", "tool_choice")
        return {name}, True

    def look(self) -> None:
        """Find out what the template makes of tools."""
        writer, tools = self.renderer.tooling, tuple(self.tools)
        try:
            lost = writer.lost((ASK,), tools, absent(json.dumps(tools)))
        except DataError as error:
            raise bad(f"'tools': {error}", "tools") from None
        if lost and not self.forced:
            raise bad(
                "'tools': this model's chat template does not write them, so that it cannot know of them; set"
                " tool_choice to the one that is to be called",
                "tools",
            )
        self.shown = () if lost else tools
        self.form = form_of(self.renderer) or Form()

    def grammar(self, words: int, ends: frozenset[int]) -> Callable[[], Grammar] | None:
        """What holds the answer to its form, if anything does."""
        asked = form(self.said.response_format)
        if self.forced:
            options = [self.schema(tool, n) for n, tool in enumerate(self.tools) if name_of(tool) in self.forced]
            asked = {"anyOf": options}, "tools"
        if asked is None:
            return None
        ends = ends.union(ends_by(self.renderer.tokenizer))
        return held(self.tokenizer, words, ends, schema_grammar(*asked), asked[1])

    def schema(self, tool: dict[str, Any], number: int) -> dict[str, Any]:
        """What a call of a tool looks like. Its parameters have a name of their own, so that `#/$defs/X` in them still
        means what stands in them (JSON Schema Core, 9.2)."""
        function = tool.get("function", tool)
        given = function.get("parameters") or {"type": "object"}
        given = {**given, "$id": given.get("$id") or f"urn:tool:{number}"}
        parts = {"name": {"const": function["name"]}, self.form.arguments: given}
        return {"type": "object", "properties": parts, "required": list(parts), "additionalProperties": False}

    # --- what came of it ----------------------------------------------------------------------------------------------

    def calls(self, text: str) -> tuple[str, list[dict[str, Any]]]:
        """What is said before the first call, and the calls."""
        found, rest, before = [], text, text
        while self.calling and (one := first_call(rest, self.names)):
            start, end, value = one
            if not found:
                before = rest[:start].removesuffix(self.form.before).rstrip()
                before = before.removesuffix(self.form.before.strip()).rstrip() if self.form.before.strip() else before
            given = value.get("arguments", value.get("parameters"))
            function = {"name": value["name"], "arguments": json.dumps(given, ensure_ascii=False)}
            found.append({"id": f"call_{uuid4().hex[:24]}", "type": "function", "function": function})
            rest = rest[end:]
            if self.said.parallel_tool_calls is False:
                break
        return (before if found else text), found

    @property
    def calling(self) -> bool:
        return bool(self.tools) and self.said.tool_choice != "none"

    def message(self, text: str, finish: str | None) -> tuple[dict[str, Any], str | None]:
        """The assistant's turn, and why it ended."""
        said, calls = self.calls(text)
        if not calls:
            return {"content": text}, finish
        why = "tool_calls" if finish == "stop" and not self.named else finish
        return {"content": said or None, "tool_calls": calls}, why

    def begin(self) -> Spoken:
        return Spoken(self)


class Spoken:
    """One answer as deltas; what may become a call is held back until it is one, or is none."""

    def __init__(self, speech: Speech) -> None:
        self.speech, self.text, self.sent, self.called = speech, "", 0, False

    def deltas(self, piece: str, over: bool) -> list[dict[str, Any]]:
        self.text += piece
        if not self.speech.calling:
            return [{"content": piece}] if piece else []
        end = len(self.text) if over else self.certain()
        made = []
        if over:
            said, calls = self.speech.calls(self.text)
            end = len(said) if calls else end
            self.called = bool(calls)
            made = [{"tool_calls": [{"index": n, **call}]} for n, call in enumerate(calls)]
        fresh, self.sent = self.text[self.sent : end], max(self.sent, end)
        return [{"content": fresh}, *made] if fresh else made

    def certain(self) -> int:
        """How much of the text is no part of a call, whatever comes."""
        mark = self.speech.form.before.strip() or "{"
        at = min((found for one in (mark, "{") if (found := self.text.find(one)) >= 0), default=-1)
        if at >= 0:
            return len(self.text[:at].rstrip())
        for length in range(min(len(mark) - 1, len(self.text)), 0, -1):
            if mark.startswith(self.text[-length:]):
                return len(self.text[:-length].rstrip())
        return len(self.text.rstrip())

    def finish(self, why: str) -> str:
        return "tool_calls" if self.called and why == "stop" and not self.speech.named else why


def checked(tool: dict[str, Any], number: int) -> dict[str, Any]:
    """A tool of the shape that OpenAI has. Raises Fault."""
    where = f"tools.{number}"
    function = tool.get("function")
    if tool.get("type") != "function" or not isinstance(function, dict):
        raise bad(f"'{where}': must be {{type: function, function: {{name, parameters}}}}", where)
    if not isinstance(function.get("name"), str) or not 0 < len(function["name"]) <= 64:
        raise bad(f"'{where}.function.name': must be a name of 1 to 64 letters", f"{where}.function.name")
    if not isinstance(function.get("parameters", {}), dict | None):
        raise bad(f"'{where}.function.parameters': must be a JSON schema", f"{where}.function.parameters")
    return {"type": "function", "function": {name: one for name, one in function.items() if name != "strict"}}
