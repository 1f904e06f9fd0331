"""Answers as OpenAI's clients read them, whole and in chunks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .answers import Answers
from .row import Likely


def chat_logprobs(likely: Sequence[Likely]) -> dict[str, Any]:
    content = [
        {
            "token": one.token, "bytes": one.bytes, "logprob": one.logprob,
            "top_logprobs": [{"token": text, "bytes": spelt, "logprob": logp} for text, spelt, logp in one.top],
        }
        for one in likely
    ]  # fmt: skip
    return {"content": content, "refusal": None}


def text_logprobs(likely: Sequence[Likely], offset: int = 0) -> dict[str, Any]:
    starts = [offset]
    for one in likely:
        starts.append(starts[-1] + len(one.token))
    return {
        "tokens": [one.token for one in likely],
        "token_logprobs": [one.logprob for one in likely],
        "top_logprobs": [None if one.logprob is None else by_text(one) for one in likely],
        "text_offset": starts[:-1],
    }


def by_text(one: Likely) -> dict[str, float]:
    """The likeliest tokens; of those that are written alike, as halves of characters are, the first."""
    found: dict[str, float] = {}
    for text, _, logp in one.top:
        found.setdefault(text, logp)
    return found


def head(answers: Answers, kind: str, model: str) -> dict[str, Any]:
    prefix = "cmpl-" if kind == "text_completion" else "chatcmpl-"
    return {"id": prefix + answers.id, "object": kind, "created": answers.created, "model": model}


def whole_chat(answers: Answers, model: str, messages: Sequence[tuple[dict[str, Any], str | None]], told: bool):
    choices = [
        {
            "index": n,
            "message": {"role": "assistant", "refusal": None, **message},
            "logprobs": chat_logprobs(answers.likely[n]) if told else None,
            "finish_reason": finish,
        }
        for n, (message, finish) in enumerate(messages)
    ]
    return {**head(answers, "chat.completion", model), "choices": choices, "usage": answers.usage}


@dataclass(frozen=True)
class Before:
    """What stands before an answer, where the prompt is given back."""

    text: str = ""
    likely: tuple[Likely, ...] = ()
    """Its tokens, where it is asked how likely they were."""


def whole_text(answers: Answers, model: str, before: Sequence[Before], told: bool) -> dict[str, Any]:
    choices = [
        {
            "index": n,
            "text": before[n].text + text,
            "logprobs": text_logprobs([*before[n].likely, *answers.likely[n]]) if told else None,
            "finish_reason": answers.finish[n],
        }
        for n, text in enumerate(answers.texts)
    ]
    return {**head(answers, "text_completion", model), "choices": choices, "usage": answers.usage}


def chunk(start: dict[str, Any], index: int, finish: str | None, **more: Any) -> dict[str, Any]:
    return {**start, "choices": [{"index": index, **more, "finish_reason": finish}]}
