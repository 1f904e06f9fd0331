"""What clients send, by OpenAI's names, and where they have none by vLLM's; checked before anything is done."""

from __future__ import annotations

import difflib
from dataclasses import fields
from functools import cache
from typing import Annotated, Any, Literal, TypeVar

import orjson
from annotated_types import Ge, Le, Len, Lt

from ..config.load import door
from ..config.record import Count, Natural, record
from .decoding import Penalty
from .fault import bad

T = TypeVar("T")

DEEPEST = 32
"""Levels of a body."""
Stop = Annotated[str, Len(1, 64)]
Stops = Stop | Annotated[tuple[Stop, ...], Len(0, 16)] | None
Token = Annotated[int, Ge(0), Lt(2**31)]
Place = Token
"""Of a choice among others."""
Any_ = dict[str, Any]


@record
class StreamOptions:
    """What a stream has beside pieces of text."""

    include_usage: bool = False
    """One more chunk, with what was used."""
    include_obfuscation: bool = False
    """Taken and of no effect: nothing is padded."""


@record
class Sampled:
    """How answers are drawn."""

    model: str
    """A name of /v1/models."""
    max_tokens: Count | None = None
    """Longest answer."""
    temperature: Annotated[float, Ge(0), Le(2)] | None = None
    """0 takes the likeliest token; 1 unless given."""
    top_p: Annotated[float, Ge(0), Le(1)] | None = None
    """Draw among the likeliest tokens that together reach this."""
    top_k: Annotated[int, Ge(-1)] | None = None
    """Draw among so many of the likeliest; 0 or -1 for all."""
    min_p: Annotated[float, Ge(0), Le(1)] | None = None
    """Draw among tokens that are at least so likely beside the likeliest."""
    presence_penalty: Penalty | None = None
    """Against tokens that the answer has."""
    frequency_penalty: Penalty | None = None
    """The same, for each time that it has them."""
    repetition_penalty: Annotated[float, Ge(0.01), Le(10)] | None = None
    """Divides what speaks for tokens that prompt or answer have."""
    logit_bias: dict[str, Annotated[float, Ge(-100), Le(100)]] | None = None
    """Added to the logits of tokens, by their ids."""
    seed: Annotated[int, Ge(-(2**63)), Le(2**64 - 1)] | None = None
    """The same seed gives the same answer."""
    n: Count | None = None
    """Answers."""
    stop: Stops = None
    """Texts before which an answer ends."""
    stop_token_ids: Annotated[tuple[Token, ...], Len(0, 16)] | None = None
    """Tokens that end an answer."""
    ignore_eos: bool | None = None
    """Go on after the token that ends an answer."""
    stream: bool | None = None
    """Send the answer piece by piece."""
    stream_options: StreamOptions | None = None
    """What a stream has beside."""
    user: str | None = None
    """Who asks; kept with feedback."""


@record
class Chat(Sampled):
    """/v1/chat/completions"""

    messages: Annotated[tuple[Any_, ...], Len(1, 4096)]
    """The dialogue."""
    max_completion_tokens: Count | None = None
    """Longest answer; goes before max_tokens."""
    logprobs: bool | None = None
    """Tell how likely the tokens were."""
    top_logprobs: Annotated[int, Ge(0), Le(20)] | None = None
    """And of so many of the likeliest."""
    response_format: Any_ | None = None
    """text, json_object or json_schema."""
    tools: Annotated[tuple[Any_, ...], Len(0, 128)] | None = None
    """Tools that may be called."""
    tool_choice: str | Any_ | None = None
    """none, auto, required, or the one that must be."""
    parallel_tool_calls: bool | None = None
    """Whether several tools may be called at once."""
    chat_template_kwargs: Any_ | None = None
    """What the chat template is given beside the dialogue, such as enable_thinking."""
    metadata: Any_ | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: Any_ | None = None
    prompt_cache_retention: str | None = None


Prompt = str | tuple[str, ...] | tuple[Token, ...] | tuple[tuple[Token, ...], ...]


@record
class Completion(Sampled):
    """/v1/completions"""

    prompt: Prompt
    """A text, tokens, or several of either."""
    max_tokens: Natural | None = None
    """Longest answer; 16 unless given, 0 for none, where the prompt alone is asked about (echo)."""
    logprobs: Annotated[int, Ge(0), Le(20)] | None = None
    """Tell how likely the tokens were, and so many of the likeliest."""
    echo: bool | None = None
    """Give back the prompt before the answer; with logprobs, how likely its tokens were."""


@record
class Embedding:
    """/v1/embeddings"""

    model: str
    input: Prompt
    """A text, tokens, or several of either."""
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Count | None = None
    """So many of the first numbers, made of length 1 again."""
    user: str | None = None


@record
class Score:
    """/v1/score"""

    model: str
    input: str | Annotated[tuple[str, ...], Len(1, 256)] | None = None
    """Texts whose class is asked for."""
    messages: tuple[Any_, ...] | None = None
    """A dialogue whose last turn is scored."""
    prompt: str | None = None
    """What was asked, where the answers are texts."""
    answers: Annotated[tuple[str, ...], Len(1, 256)] | None = None
    """Answers to the prompt, each of which is scored."""


@record
class Said:
    """/v1/feedback"""

    response_id: Annotated[str, Len(1, 80)]
    """The id of the answer."""
    index: Place = 0
    """Which of its choices."""
    thumb: Literal["up", "down"] | None = None
    """Whether it was liked."""
    edit: Annotated[str, Len(1, 1 << 18)] | None = None
    """What it should have said."""
    better_than: Place | Annotated[str, Len(1, 80)] | None = None
    """Another choice of the same response, or another response to the same prompt, that is the worse one."""
    tags: Annotated[tuple[Annotated[str, Len(1, 64)], ...], Len(0, 32)] = ()
    """Words of one's own."""
    rater: Annotated[str, Len(0, 128)] = ""
    """Who says so."""


@record
class Load:
    """/v1/load_lora_adapter"""

    lora_name: str
    """What it is to be called."""
    lora_path: str
    """The name of a folder in adapter_root."""


@record
class Unload:
    """/v1/unload_lora_adapter"""

    lora_name: str
    """What it is called."""


KNOWN = {
    "audio", "function_call", "functions", "modalities", "prediction", "reasoning_effort", "web_search_options",
    "verbosity", "best_of", "suffix", "moderation",
}  # fmt: skip
"""What OpenAI has, and is not done here; to take it in silence would be a lie."""
KNOWN_TO_DO_NOTHING = (None, False, 1, [], ["text"])
"""Values of those that ask for nothing."""


def parsed(cls: type[T], body: bytes) -> T:
    """A body as a record. Raises Fault with what is wrong first."""
    return checked(cls, tree(body))


def tree(body: bytes) -> dict[str, Any]:
    """A body as JSON. Raises Fault."""
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise bad(f"the body is no JSON: {error}") from None
    if not isinstance(said, dict):
        raise bad("the body must be a JSON object")
    if too_deep(said):
        raise bad(f"the body is more than {DEEPEST} levels deep")
    return whole(said)


def too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(DEEPEST):
        level = [inner for outer in level for inner in inside(outer)]
        if not level:
            return False
    return True


def whole(value: Any) -> Any:
    """A value in which 2.0 is 2: to JSON, and to JSON Schema, they are one number."""
    if isinstance(value, dict):
        return {name: whole(one) for name, one in value.items()}
    if isinstance(value, list):
        return [whole(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def inside(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def checked(cls: type[T], said: dict[str, Any]) -> T:
    from pydantic import ValidationError

    for name, value in said.items():
        if name not in names(cls) and (name not in KNOWN or value not in KNOWN_TO_DO_NOTHING):
            raise unknown(cls, name)
    kept = {name: value for name, value in said.items() if name in names(cls)}
    try:
        return door(cls).validate_python(kept)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"] if isinstance(part, int) or part in names(cls))
        where = where or str(first["loc"][0])
        why = "is missing" if first["type"] == "missing" else first["msg"][0].lower() + first["msg"][1:]
        raise bad(f"'{where}': {why}" if why != "is missing" else f"'{where}' is missing", where) from None


def unknown(cls: type, name: str):
    if name in KNOWN:
        return bad(f"'{name}' is not supported here; leave it out", name, "unsupported_parameter")
    near = difflib.get_close_matches(name, names(cls), 1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    return bad(f"unrecognized request argument: '{name[:80]}'{hint}", name[:80], "unknown_parameter")


@cache
def names(cls: type) -> frozenset[str]:
    return frozenset(field.name for field in fields(cls))  # type: ignore[arg-type]
