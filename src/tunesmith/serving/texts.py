"""What is read and not answered: texts as vectors, as classes, as scores."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..data.rendering.tokens import NoTarget
from ..errors import Refusal
from ..model.engine import Ids, reading
from .answers import dialogue, several
from .fault import bad
from .lane import Lane
from .models import Served
from .wire import Embedding, Score

MOST = 256
"""Texts of one request."""


def inputs(said: Embedding) -> list[str | Ids]:
    found = several(said.input, "input")
    if len(found) > MOST or not all(found):
        raise bad(f"'input': must be 1 to {MOST} texts, none of them empty", "input")
    return found


def embed(lane: Lane, adapter: str, prompts: Sequence[Ids]) -> list[Tensor]:
    """The mean of the last states of each text's tokens, of length 1."""
    made = []
    with reading(lane.engine.model), lane.under([adapter]):
        for prompt in prompts:
            ids = torch.tensor([lane.engine.begun(prompt)], device=lane.engine.device)
            place = torch.arange(ids.shape[1], device=lane.engine.device).unsqueeze(0)
            out = lane.engine.read(ids, place, logits_to_keep=1, output_hidden_states=True)
            states = out.hidden_states[-1][0, -len(prompt) :].float()
            made.append(torch.nn.functional.normalize(states.mean(0), dim=0).cpu())
    return made


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


def scoring(said: Score, served: Served) -> Callable[[], dict[str, Any]]:
    """What scores texts, or tells their classes. Raises Fault where the model does neither."""
    tuned = served.tuned
    if tuned is None:
        raise bad(f"the model '{said.model}' writes; /v1/score is for runs of objective=reward or classify", "model")
    if tuned.scores:
        return lambda: scores(said, tuned)
    if said.input is None:
        raise bad("'input' is missing", "input")
    found = (said.input,) if isinstance(said.input, str) else said.input
    return lambda: classes(found, tuned)


def classes(found: Sequence[str], tuned: Any) -> dict[str, Any]:
    """What a run tells of texts; of several tasks an entry each, with the task's name."""
    data = []
    for n, text in enumerate(found):
        told = attempt(lambda text=text: tuned.tell(text))
        for task, chances in told.items():
            label = max(chances, key=chances.get)
            one = {"object": "class", "index": n, "label": label, "score": chances[label], "probs": chances}
            data.append(one | ({"task": task} if len(told) > 1 else {}))
    return {"object": "list", "data": data}


def scores(said: Score, tuned: Any) -> dict[str, Any]:
    if said.messages is not None:
        turns = dialogue(said.messages)
        if len(turns) < 2 or turns[-1].role != "assistant":
            raise bad("'messages': must end with the assistant's turn, which is scored", "messages")
        pairs: list[tuple[Any, str]] = [(turns[:-1], turns[-1].content)]
    elif said.prompt is not None and said.answers is not None:
        pairs = [(said.prompt, answer) for answer in said.answers]
    else:
        raise bad("'messages' is missing, or 'prompt' with 'answers'", "messages")
    found = [attempt(lambda pair=pair: tuned.score(*pair)) for pair in pairs]
    data = [{"object": "score", "index": n, "score": score} for n, score in enumerate(found)]
    return {"object": "list", "data": data}


def attempt(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except (Refusal, NoTarget) as error:
        raise bad(f"'input': {error}", "input") from None
