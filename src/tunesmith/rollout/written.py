"""Two answers to each prompt, drawn from a model, for a judge to compare."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256

import torch

from ..cache import cache
from ..data.example import Example
from ..data.rendering.render import Renderer
from ..errors import DataError
from ..files import private, write
from ..model.engine import Engine, sampling
from ..model.load import load_tokenizer
from ..run import Data
from .judging import Writing
from .local import LONGEST, causal, stamp
from .turns import answer

AT_ONCE = 8
"""Prompts that are answered together, twice each."""


def answered(found: Sequence[Example], how: Writing, tell: Callable[[int, int], None]) -> list[Example]:
    """Each example with two answers of the model instead of its own.

    They are drawn by the seed and the prompts of a batch, and kept on the disk: begun again, a batch says the same.
    """
    for example in found:
        if not example.prompt:
            raise DataError(f"{example.origin}: has no prompt for write.model to answer")
    model, folder = causal(str(how.model))
    tokenizer = load_tokenizer(folder)
    renderer, engine = Renderer(tokenizer, Data(path="none", max_length=LONGEST)), Engine(model, tokenizer, 2 * AT_ONCE)
    weights = [[one.name, *stamp(one)] for one in sorted(folder.glob("*.safetensors"))]
    made: list[Example] = []
    for at in range(0, len(found), AT_ONCE):
        part = found[at : at + AT_ONCE]
        prompts = [renderer.prompt(one.prompt, one.tools) for one in part]
        told = [how.model, weights, how.max_new_tokens, how.temperature, how.seed, prompts]
        key = sha256(json.dumps(told).encode()).hexdigest()
        file = cache() / "judge" / "answers" / f"{key}.json"
        if not file.is_file():
            torch.manual_seed(int(key[:12], 16))
            twice = [prompt for prompt in prompts for _ in range(2)]
            drawn = engine.answers(twice, how.max_new_tokens, sampling(how.temperature))
            private(cache())
            write(file, json.dumps(drawn))
        drawn = [answer(text, ended) for text, ended in json.loads(file.read_text(encoding="utf-8"))]
        for n, example in enumerate(part):
            made.append(replace(example, answers=(drawn[2 * n], drawn[2 * n + 1]), truth=None))
        tell(min(at + AT_ONCE, len(found)), len(found))
    return made
