"""Answers that are held to a form: a JSON schema, or any JSON. The masks are llguidance's."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from .fault import Fault, bad

LARGEST = 1 << 17
"""Letters of a schema."""
SPACE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""How JSON is spaced; free space is where weak models never come to an end."""


class Held:
    """One answer under a grammar."""

    def __init__(self, matcher: Any, words: int) -> None:
        self.matcher, self.words = matcher, words
        self.broken = ""
        """Why it cannot be held to any longer, if so."""

    def allowed(self) -> Tensor:
        bits = torch.frombuffer(bytearray(self.matcher.compute_bitmask()), dtype=torch.uint8)
        each = (bits.unsqueeze(-1) >> torch.arange(8, dtype=torch.uint8)) & 1
        return each.flatten()[: self.words].bool()

    def accept(self, token: int) -> bool:
        self.matcher.consume_token(token)
        if self.matcher.is_error():
            self.broken = self.matcher.get_error().splitlines()[0][:300]
        return bool(self.broken) or self.matcher.is_stopped()


@lru_cache(maxsize=4)
def vocabulary(tokenizer: Any, words: int, ends: frozenset[int]):
    try:
        from llguidance.hf import from_tokenizer
    except ImportError:
        raise Fault(
            501,
            "response_format and forced tools need a package: pip install 'tunesmith[serve]'",
            code="missing_package",
        ) from None
    return from_tokenizer(tokenizer, n_vocab=words, eos_token=sorted(ends))


def schema_grammar(schema: Any, where: str) -> str:
    """A schema as a grammar. Raises Fault for one that cannot be held to."""
    from llguidance import LLMatcher

    text = json.dumps(schema)
    if len(text) > LARGEST:
        raise bad(f"'{where}': a schema may have {LARGEST} letters here", where)
    try:
        return LLMatcher.grammar_from_json_schema(text, defaults=SPACE)  # pyright: ignore[reportArgumentType]
    except ValueError as error:
        raise bad(f"'{where}': {str(error).splitlines()[0][:300]}", where) from None


def held(tokenizer: Any, words: int, ends: frozenset[int], grammar: str, where: str) -> Callable[[], Held]:
    """What makes a fresh state of a grammar for each answer. Raises Fault for one that cannot be held to."""
    known = vocabulary(tokenizer, words, ends)
    from llguidance import LLMatcher, LLParserLimits

    limits = LLParserLimits(max_grammar_size=100_000)

    def make() -> Held:
        return Held(LLMatcher(known, grammar, limits=limits, log_level=0), words)

    first = make()
    if first.matcher.is_error():
        raise bad(f"'{where}': {first.matcher.get_error().splitlines()[0][:300]}", where)
    return make


def form(asked: dict[str, Any] | None) -> tuple[Any, str] | None:
    """The schema that response_format asks for, and where it stands; None for free text."""
    if asked is None:
        return None
    match asked.get("type"):
        case "text":
            return None
        case "json_object":
            return {"type": "object"}, "response_format"
        case "json_schema":
            given = asked.get("json_schema")
            if not isinstance(given, dict) or not isinstance(given.get("schema"), dict | bool):
                where = "response_format.json_schema.schema"
                raise bad(f"'{where}': must be a JSON schema", where)
            return given["schema"], "response_format.json_schema.schema"
    raise bad("'response_format.type': must be text, json_object or json_schema", "response_format.type")
