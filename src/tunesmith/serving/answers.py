"""From a request to answers: what the model is asked, and what comes of it as pieces."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import uuid4

from ..data.example import Message
from ..data.formats.messages import Messages
from ..data.rendering.render import Renderer
from ..errors import DataError
from ..model.engine import Ids
from ..rollout.each import Draw
from .fault import CLOSED, Fault, bad
from .loop import Loop
from .models import Served
from .row import Ask, Likely, Piece
from .settings import Serving
from .wire import Any_, Chat, Completion, Sampled

LEAST = 1e-6
"""Of top_p: 0 means the likeliest token, which some token must be."""
LONG = 20
"""Digits that no token's number has; of thousands Python makes no number."""
READER: Any = Messages()  # the registry knows it as any format


def dialogue(said: Sequence[Any_], tools: Sequence[Any_] = ()) -> tuple[Message, ...]:
    """Turns as OpenAI's clients send them, as the data's own reader reads them. Raises Fault."""
    turns = [turn(one, n) for n, one in enumerate(said)]
    try:
        return READER.turns({"messages": turns, "tools": list(tools)}, "messages")
    except (ValueError, DataError) as error:
        raise bad(f"'messages': {error}", "messages") from None


def turn(said: Any_, number: int) -> Any_:
    """A turn whose content is a text; parts of a text are put together."""
    where = f"messages.{number}"
    if unknown := said.keys() - TURN:
        raise bad(f"'{where}': has unknown keys: {', '.join(sorted(map(str, unknown)))[:80]}", where)
    if not isinstance(said.get("role"), str):
        raise bad(f"'{where}.role': must be system, user, assistant or tool", f"{where}.role")
    content = said.get("content")
    if isinstance(content, list):
        content = "".join(part_text(part, where) for part in content)
    if content is None and (said.get("tool_calls") or said["role"] == "assistant"):
        content = ""
    if not isinstance(content, str):
        raise bad(f"'{where}.content': must be a text or a list of text parts", f"{where}.content")
    return {key: value for key, value in said.items() if value is not None and key in READ} | {"content": content}


READ = {"role", "content", "name", "tool_calls", "tool_call_id", "reasoning_content"}
TURN = READ | {"refusal", "audio", "annotations", "function_call"}


TAKEN = {
    "messages", "tools", "documents", "add_generation_prompt", "continue_final_message", "chat_template", "tokenize",
    "self", "covering",
}  # fmt: skip
"""Names under which a chat template is given what the server alone says, or which are no template's."""
LARGEST = 1 << 14
"""Letters of what a template is given beside the dialogue."""


def rendering(said: Chat, served: Served) -> Renderer:
    """What writes a dialogue for a model, its template given what the client says beside. Raises Fault."""
    where, more = "chat_template_kwargs", said.chat_template_kwargs
    if not more:
        return served.renderer
    if taken := more.keys() & (TAKEN | served.renderer.writer.specials.keys()):
        raise bad(f"'{where}': {', '.join(sorted(taken))} is what the server says; leave it out", where)
    if len(json.dumps(more)) > LARGEST:
        raise bad(f"'{where}': at most {LARGEST} letters of JSON here", where)
    return served.renderer.knowing(more)


def part_text(part: Any, where: str) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in ("image_url", "input_audio", "file"):
        raise bad(f"'{where}.content': {kind} is not taken by this model; send text", f"{where}.content")
    if kind not in ("text", "refusal") or not isinstance(part.get(kind), str):
        raise bad(f"'{where}.content': each part must be a text", f"{where}.content")
    return part[kind]


def check_letters(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise bad(f"'{where}': holds half of a character, for which there is no token", where) from None


class Asking:
    """What requests become under one server's settings."""

    def __init__(self, settings: Serving, loop: Loop, length: int, words: int) -> None:
        self.settings, self.loop, self.length, self.words = settings, loop, length, words
        self.most_answers = min(settings.max_n, settings.max_rows)

    def ask(self, said: Sampled, served: Served, prompt: Ids, most: int | None, logprobs: int | None) -> Ask:
        """One prompt. Raises Fault where it asks for more than may be had."""
        n = said.n or 1
        if n > self.most_answers:
            raise bad(f"'n': at most {self.most_answers} here (got {n})", "n")
        if most and most > self.settings.max_tokens:
            raise bad(f"'max_tokens': at most {self.settings.max_tokens} here (got {most})", "max_tokens")
        room, least = self.length - len(prompt), 1 if most is None else most
        if not prompt:
            raise bad("the prompt is empty", "prompt")
        if room < least:
            raise bad(
                f"the context is {self.length} tokens; the prompt has {len(prompt)}, {least} more are asked for",
                "messages" if isinstance(said, Chat) else "prompt",
                "context_length_exceeded",
            )
        made = Ask(
            served.adapter,
            prompt,
            self.draw(said),
            min(self.settings.max_tokens if most is None else most, room),
            n=n,
            seed=None if said.seed is None else str(said.seed),
            ends=served.ends,
            stop_ids=frozenset(said.stop_token_ids or ()),
            ignore_end=bool(said.ignore_eos),
            logprobs=logprobs,
        )
        if made.size > self.loop.holds:
            why = f"'n': {n} answers of {made.most} tokens are more than fit here; ask for fewer or shorter ones"
            raise bad(why, "n")
        return made

    def draw(self, said: Sampled) -> Draw:
        bias = self.bias(said.logit_bias or {})
        stop = said.stop or ()
        return Draw(
            temperature=1.0 if said.temperature is None else said.temperature,
            top_p=1.0 if said.top_p is None else max(said.top_p, LEAST),
            top_k=max(0, said.top_k or 0),
            min_p=said.min_p or 0.0,
            presence_penalty=said.presence_penalty or 0.0,
            frequency_penalty=said.frequency_penalty or 0.0,
            repetition_penalty=said.repetition_penalty or 1.0,
            logit_bias=bias,
            stop=(stop,) if isinstance(stop, str) else stop,
        )

    def bias(self, said: dict[str, float]) -> tuple[tuple[int, float], ...]:
        for token in said:
            known = token.isascii() and token.isdigit() and len(token) < LONG and int(token) < self.words
            if not known:
                raise bad(f"'logit_bias': '{token[:20]}' is no token of this model", "logit_bias")
        return tuple((int(token), value) for token, value in said.items())


class Answers:
    """The answers to the prompts of one request, piece by piece. Who leaves takes them along."""

    def __init__(self, loop: Loop, asks: Sequence[Ask]) -> None:
        self.loop, self.asks = loop, list(asks)
        self.id = uuid4().hex
        self.created = int(time.time())
        self.queue: asyncio.Queue[tuple[int, Any]] = asyncio.Queue()
        self.texts = [""] * sum(ask.n for ask in asks)
        self.likely: list[list[Likely]] = [[] for _ in self.texts]
        self.finish: list[str | None] = [None] * len(self.texts)
        self.written = 0
        first = 0
        for ask in self.asks:
            ask.hear = self.hearing(first)
            first += ask.n

    def hearing(self, first: int):
        return lambda heard: self.queue.put_nowait((first, heard))

    def begin(self) -> None:
        """Have the model asked, unless nothing is to be written."""
        for ask in self.asks:
            if ask.most:
                self.loop.submit(ask)
        if not any(ask.most for ask in self.asks):
            self.finish = ["length"] * len(self.texts)

    async def pieces(self) -> AsyncIterator[tuple[int, Piece]]:
        """Each piece with the number of its choice. Raises Fault."""
        try:
            while None in self.finish:
                first, heard = await self.queue.get()
                if isinstance(heard, Fault):
                    raise heard
                index = first + heard.index
                self.texts[index] += heard.text
                self.likely[index] += heard.likely
                self.finish[index] = heard.finish
                self.written += heard.tokens
                yield index, heard
        finally:
            if None in self.finish:
                self.leave()

    def leave(self) -> None:
        """Nobody waits any longer."""
        for ask in self.asks:
            ask.cancelled = True
        self.loop.wake()

    def gone(self) -> None:
        """The client has left."""
        if None in self.finish:
            self.loop.metrics.cancelled += 1
        self.queue.put_nowait((0, Fault(CLOSED, "the client has left")))

    @property
    def usage(self) -> dict[str, Any]:
        read = sum(len(ask.prompt) for ask in self.asks)
        reused = sum(min(ask.reused, len(ask.prompt)) for ask in self.asks)
        return {
            "prompt_tokens": read, "completion_tokens": self.written, "total_tokens": read + self.written,
            "prompt_tokens_details": {"cached_tokens": reused},
        }  # fmt: skip


def prompts_of(said: Completion) -> list[str | Ids]:
    """The prompts of a completion, each a text or tokens."""
    return several(said.prompt, "prompt")


def several(said: Any, where: str) -> list[str | Ids]:
    """A text or tokens, or several of either."""
    if isinstance(said, str):
        return [said]
    if said and isinstance(said[0], int):
        return [list(said)]
    if not said:
        raise bad(f"'{where}': must not be empty", where)
    return [one if isinstance(one, str) else list(one) for one in said]
