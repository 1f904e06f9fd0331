"""What is read and not answered: texts as vectors, as classes, as scores."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..data.rendering.tokens import NoTarget, TooLong
from ..errors import Refusal
from ..model.engine import Ids
from .answers import dialogue, several
from .fault import bad
from .models import Served
from .wire import Embedding, Score

MOST = 2048
"""Texts of one request."""


def inputs(said: Embedding) -> list[str | Ids]:
    found = several(said.input, "input")
    if len(found) > MOST or not all(found):
        raise bad(f"'input': must be 1 to {MOST} texts, none of them empty", "input")
    return found


def embeddings(said: Embedding, vectors: Sequence[Tensor], tokens: int) -> dict[str, Any]:
    size = len(vectors[0])
    if said.dimensions and said.dimensions > size:
        raise bad(f"'dimensions': this model's vectors have {size} numbers", "dimensions")
    kept = [torch.nn.functional.normalize(one[: said.dimensions], dim=0) for one in vectors]
    data = [
        {"object": "embedding", "index": n, "embedding": numbers(one, said.encoding_format == "base64")}
        for n, one in enumerate(kept)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": said.model, "usage": usage}


def numbers(vector: Tensor, packed: bool) -> Any:
    return base64.b64encode(vector.numpy().astype("<f4").tobytes()).decode() if packed else vector.tolist()


def scoring(said: Score, served: Served) -> list[Callable[[], list[Any]]]:
    """What scores texts, or tells their classes, each by itself. Raises Fault where the model does neither."""
    tuned = served.tuned
    if tuned is None:
        raise bad(f"the model '{said.model}' writes; /v1/score is for runs of objective=reward or classify", "model")
    if tuned.scores:
        pairs = scored(said)
        where = "messages" if said.messages is not None else "answers"
        return [partial(score_of, tuned, where, n, pair) for n, pair in enumerate(pairs)]
    if said.input is None:
        raise bad("'input' is missing", "input")
    found = (said.input,) if isinstance(said.input, str) else said.input
    return [partial(classes, tuned, n, text) for n, text in enumerate(found)]


def classes(tuned: Any, number: int, text: str) -> list[Any]:
    """What a run tells of a text; of several tasks an entry each, with the task's name."""
    data, told = [], attempt("input", lambda: tuned.tell(text, whole=True))
    for task, chances in told.items():
        label = max(chances, key=chances.get)
        one = {"object": "class", "index": number, "label": label, "score": chances[label], "probs": chances}
        data.append(one | ({"task": task} if len(told) > 1 else {}))
    return data


def scored(said: Score) -> list[tuple[Any, str]]:
    """Prompts with the answers that are scored. Raises Fault."""
    if said.messages is not None:
        turns = dialogue(said.messages)
        if len(turns) < 2 or turns[-1].role != "assistant":
            raise bad("'messages': must end with the assistant's turn, which is scored", "messages")
        return [(turns[:-1], turns[-1].content)]
    if said.prompt is not None and said.answers is not None:
        return [(said.prompt, answer) for answer in said.answers]
    raise bad("'messages' is missing, or 'prompt' with 'answers'", "messages")


def score_of(tuned: Any, where: str, number: int, pair: tuple[Any, str]) -> list[Any]:
    return [{"object": "score", "index": number, "score": attempt(where, lambda: tuned.score(*pair, whole=True))}]


def attempt(where: str, work: Callable[[], Any]) -> Any:
    try:
        return work()
    except TooLong as error:
        why = f"'{where}': has {error.tokens} tokens, and this run reads {error.longest} (data.max_length); send less"
        raise bad(why, where, "context_length_exceeded") from None
    except (Refusal, NoTarget) as error:
        raise bad(f"'{where}': {error}", where) from None
