"""What a tokenizer's chat template makes of a dialogue."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ...errors import DataError
from ..example import Call, Message
from .chat_template import LONGEST, ChatTemplate, Marks, TooMuch, chat_template
from .covered import Covered, Forms
from .tokens import NoTarget

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message.role + ': ' + message.content }}"
    "{% if message.role == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
"""Used, and said so, where a tokenizer brings no chat template."""

THOUGHT = re.compile(r"\A\s*<think>.*?</think>\s*", re.DOTALL)
"""What is thought at the beginning of what is said."""

OPENED = re.compile(r"<think>(\s*)\Z")
"""How a prompt ends that begins a thought, for the answer to go on with: DeepSeek-R1 (arXiv:2501.12948), QwQ."""

EMPTY = re.compile(r"<think>\s*</think>\s*")
Tools = Sequence[dict[str, Any]]
Written = tuple[str, list[tuple[int, int]]]
"""A text, and what of it the template marks."""


class Refused(DataError):
    """A template does not take this dialogue."""


class Dialogue(NamedTuple):
    """What is said, and the tools that may be called."""

    messages: tuple[Message, ...]
    tools: Tools = ()


class Writer:
    """Writes dialogues for one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer
        self.name = Path(tokenizer.name_or_path).name
        self.plain = tokenizer.chat_template is None
        if self.plain:
            tokenizer.chat_template = PLAIN_TEMPLATE
        self.specials: dict[str, Any] = dict(tokenizer.special_tokens_map)
        self.special = special_tokens(tokenizer)
        self.sources: dict[bool, str] = {}
        self.forms = Forms()
        self.as_text = False
        """Whether the template wants the arguments of calls as JSON text; found out when it fails at an object."""
        self.more: Mapping[str, Any] = {}
        """What the template is given beside the dialogue."""

    def knowing(self, more: Mapping[str, Any]) -> Writer:
        """The same writer, whose template is given more."""
        made = copy(self)
        made.__dict__.pop("opens", None)
        made.more = more
        return made

    @cached_property
    def opens(self) -> bool:
        """Whether the template's prompts begin a thought."""
        try:
            return bool(OPENED.search(self.rendered((Message("user", "?"),), (), True)[0]))
        except Refused:
            return False

    def source(self, tools: Tools) -> str:
        """The template; a tokenizer may bring another one for tools."""
        if bool(tools) not in self.sources:
            self.sources[bool(tools)] = self.tokenizer.get_chat_template(tools=list(tools) or None)
        return self.sources[bool(tools)]

    def text(self, messages: Iterable[Message], tools: Tools = (), answer: bool = False) -> str:
        """The dialogue as the template writes it; with `answer`, up to where the assistant would speak."""
        return self.written(messages, tools, answer)[0]

    def written(self, messages: Iterable[Message], tools: Tools = (), answer: bool = False) -> Written:
        """The same, and where the template itself marks what the assistant generates."""
        messages = tuple(messages)
        made = self.rendered(messages, tools, answer)
        last = messages[-1] if messages else None
        if answer or last is None or last.role != "assistant" or not self.opens:
            return made
        return self.thought_through(messages, tools, made)

    def thought_through(self, messages: tuple[Message, ...], tools: Tools, made: Written) -> Written:
        """A dialogue whose last answer goes on with the thought that its prompt begins.

        Templates of such prompts expect the thought within what is said, or leave it out of a dialogue, its beginning
        with it. A model is given the prompt, so that its text stands here; what is thought, if anything, is closed as
        it was opened.
        """
        text, marks = made
        asked, _ = self.rendered(messages[:-1], tools, True)
        opened = OPENED.search(asked)
        if not opened or text.startswith(asked):
            return made
        last, bare = messages[-1], asked[: opened.start()]
        if inside := last.thinking is None and THOUGHT.match(last.content):
            text, marks = self.rendered((*messages[:-1], replace(last, content=spoken(last))), tools, False)
        if not text.startswith(bare):
            return made
        empty = EMPTY.match(text, len(bare))  # which a template may write itself
        rest = empty.end() if empty else len(bare)
        begun = asked + closed(thought_of(last), inside[0].lstrip() if inside else "", opened)
        more = len(begun) - rest
        moved = [(start, end) if end <= rest else (len(asked), end + more) for start, end in marks]
        return begun + text[rest:], moved

    def rendered(self, messages: tuple[Message, ...], tools: Tools, answer: bool) -> Written:
        """What the template writes."""
        try:
            return self.attempt(messages, tools, answer)
        except TypeError as error:
            if self.as_text or not any(message.calls for message in messages):
                raise self.refused(messages, error) from error
        try:
            self.as_text = True
            return self.attempt(messages, tools, answer)
        except TypeError as error:
            self.as_text = False
            raise self.refused(messages, error) from error

    def attempt(self, messages: tuple[Message, ...], tools: Tools, answer: bool) -> Written:
        given = {"tools": [*map(wrapped, tools)] or None, "documents": None, "add_generation_prompt": answer}
        given |= {**self.specials, **self.more}
        try:
            template = chat_template(self.source(tools))
            if not tools and not self.more and (made := self.known(template, messages, given)):
                return made
            return template.render(messages=[self.turn(message) for message in messages], **given)
        except TooMuch as error:
            raise DataError(
                f"the chat template of {self.name} {error}; take the tokenizer of a model that you trust"
            ) from None
        except (MemoryError, TypeError):
            raise
        except Exception as error:  # somebody else's program: it may fail in any way
            raise self.refused(messages, error) from error

    def known(self, template: ChatTemplate, messages: tuple[Message, ...], given: dict[str, Any]) -> Written | None:
        """The same without running the template, where it is known what it makes of texts."""
        if any([m.calls or m.name is not None or m.call_id is not None for m in messages]):
            return None
        texts = [message.content for message in messages]
        thoughts = [message.thinking for message in messages]
        if sum(map(len, texts)) > LONGEST // 10:  # it may have to be stopped
            return None

        def run(texts: list[Any]) -> tuple[list[Any], Marks]:
            said, thought = texts[: len(messages)], texts[len(messages) :]
            parts = zip(messages, said, thought, strict=True)
            turns = [self.turn(replace(message, content=one, thinking=other)) for message, one, other in parts]
            return template.run(covering=any(isinstance(text, Covered) for text in texts), messages=turns, **given)

        speakers = given["add_generation_prompt"], *[(message.role, message.thinking is None) for message in messages]
        return self.forms.written(speakers, [*texts, *thoughts], run)

    def refused(self, messages: tuple[Message, ...], error: Exception) -> Refused:
        roles = ", ".join(message.role for message in messages)
        return Refused(f"the chat template of {self.name} refuses a dialogue of {roles}: {error}")

    def turn(self, message: Message) -> dict[str, Any]:
        """A message as templates read it: what is thought under both names, arguments of calls as objects."""
        made: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.thinking is not None:
            made |= {"thinking": message.thinking, "reasoning_content": message.thinking}
        if message.calls:
            made["tool_calls"] = [self.call(call) for call in message.calls]
        if message.name is not None:
            made["name"] = message.name
        if message.call_id is not None:
            made["tool_call_id"] = message.call_id
        return made

    def call(self, call: Call) -> dict[str, Any]:
        arguments = json.dumps(call.arguments, ensure_ascii=False) if self.as_text else call.arguments
        made = {"type": "function", "function": {"name": call.name, "arguments": arguments}}
        return made if call.id is None else {"id": call.id, **made}

    def stopped(self, text: str) -> bool:
        """Whether a special token ends a text; nothing but space follows it."""
        *_, last = (None, *self.special.finditer(text))
        return last is not None and not text[last.end() :].strip()

    def check_thinking(self, last: Message, text: str) -> None:
        """Raises NoTarget where the template leaves out what is thought before the last answer."""
        thought = (last.thinking or "").strip()
        if last.role == "assistant" and thought not in text:
            raise NoTarget(
                f"the chat template of {self.name} does not write what the assistant thinks (reasoning_content);"
                " set data.thinking=drop, or put it into the answer as <think>...</think>"
            )


def closed(thought: str, block: str, opened: re.Match[str]) -> str:
    """What goes on with a thought that was `opened`, up to its end: as the `block` has it that a turn begins with."""
    if block.startswith(opened[0]):
        return block.removeprefix(opened[0])
    return f"{thought}{opened[1]}</think>{opened[1] * 2}"


def special_tokens(tokenizer: PreTrainedTokenizerFast) -> re.Pattern[str]:
    """Finds them in a text; some tokenizers name a few of theirs only among the tokens that were added."""
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    longest_first = sorted(filter(None, added.union(tokenizer.all_special_tokens)), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")


def wrapped(tool: dict[str, Any]) -> dict[str, Any]:
    """A tool in the shape that templates read, if it is a bare schema."""
    return tool if "function" in tool else {"type": "function", "function": tool}


def spoken(message: Message) -> str:
    """What is said, without what is thought before."""
    return THOUGHT.sub("", message.content) if message.role == "assistant" else message.content


def thought_of(message: Message) -> str:
    """What the assistant thinks before it speaks, wherever that stands, without space around it."""
    block = THOUGHT.match(message.content) if message.role == "assistant" else None
    inside = block[0].strip().removeprefix("<think>").removesuffix("</think>") if block else ""
    return (message.thinking or inside).strip()


def unthinking(message: Message) -> Message:
    """A message without what the assistant thinks, wherever that stands."""
    if message.role != "assistant" or message.thinking is None and not THOUGHT.match(message.content):
        return message
    return replace(message, content=THOUGHT.sub("", message.content), thinking=None)
