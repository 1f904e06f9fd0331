"""What a model knew before a training and knows after it: general skills, and how well it tells general text.

Two hundred questions of our own (`skills.jsonl`: facts, arithmetic, language, instructions, refusal), each with a
right answer and wrong ones, ranked by their likelihood a token; and two dozen paragraphs of English and Chinese
(`general.txt`), whose perplexity is taken. Small on purpose: it takes a minute on a laptop, and tells forgetting from
noise by asking the same questions twice.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np

from ..data.example import Answer, Example, Message
from ..data.rendering.render import Renderer
from ..model.engine import Engine, Ids
from .metrics import RESAMPLES, Interval, interval

MOST = 700.0
"""Nats a token; e to more of them is no number."""
UNTOLD = 1e9
"""Nats that a text takes which cannot be told: its likelihood is none, or no number."""


@dataclass(frozen=True)
class Question:
    """Something that most models know, with a right answer and others."""

    skill: str
    prompt: str
    right: str
    wrong: tuple[str, ...]

    @property
    def answers(self) -> tuple[str, ...]:
        return (self.right, *self.wrong)


@dataclass(frozen=True)
class Known:
    """What a model knows."""

    hits: dict[str, list[bool]]
    """Of each skill, which questions it answers rightly."""
    lost: list[float]
    """Of each paragraph, the nats that it takes the model to be told it."""
    tokens: list[int]
    """Of each paragraph, how many tokens were told."""

    @property
    def perplexity(self) -> float:
        return power(self.nats.sum() / sum(self.tokens))

    @property
    def nats(self) -> np.ndarray:
        """What each paragraph took, as numbers that can be added."""
        return np.nan_to_num(np.array(self.lost, float), nan=UNTOLD, posinf=UNTOLD).clip(max=UNTOLD)

    def as_json(self) -> dict[str, Any]:
        return {"hits": self.hits, "lost": self.lost, "tokens": self.tokens, "perplexity": self.perplexity}

    @staticmethod
    def from_json(facts: dict[str, Any]) -> Known:
        return Known(facts["hits"], facts["lost"], facts["tokens"])


def questions() -> list[Question]:
    """All of them."""
    lines = (files("tunesmith.evaluate") / "skills.jsonl").read_text(encoding="utf-8").splitlines()
    return [Question(one["skill"], one["prompt"], one["right"], tuple(one["wrong"])) for one in map(json.loads, lines)]


def paragraphs() -> list[str]:
    """The general text."""
    return (files("tunesmith.evaluate") / "general.txt").read_text(encoding="utf-8").splitlines()


def ask(model: Any, renderer: Renderer, batch_size: int = 32) -> Known:
    """Ask a causal model everything; its weights stay as they are."""
    engine = Engine(model, renderer.tokenizer, batch_size)
    hits: dict[str, list[bool]] = {}
    for asked, prompts, options in rendered(renderer):
        sizes = np.array([[len(option) for option in row] for row in options])
        each = engine.rank(prompts, options).numpy() / sizes  # a token: long answers are less likely by length alone
        for one, hit in zip(asked, rightly(each), strict=True):
            hits.setdefault(one.skill, []).append(hit)
    prompts, options = text(renderer)
    ranks = engine.rank(prompts, options)
    return Known(hits, (-ranks[:, 0]).tolist(), [len(ids) for [ids] in options])


def rendered(renderer: Renderer) -> Iterator[tuple[list[Question], list[Ids], list[list[Ids]]]]:
    """The questions that have equally many answers, with the tokens of their prompts and of each answer."""
    asked = questions()
    for count in sorted({len(one.answers) for one in asked}):
        some = [one for one in asked if len(one.answers) == count]
        prompts = [renderer.prompt([Message("user", one.prompt)]) for one in some]
        yield some, prompts, [[answered(renderer, one.prompt, answer) for answer in one.answers] for one in some]


def text(renderer: Renderer) -> tuple[list[Ids], list[list[Ids]]]:
    """Of each paragraph its first token, and the others, which are told after it."""
    told = [renderer.text_ids(Example(text=paragraph)) for paragraph in paragraphs()]
    return [ids[:1] for ids in told], [[ids[1:]] for ids in told]


def rightly(each: np.ndarray) -> list[bool]:
    """[N, O] how likely options are -> [N] whether the first, the right one, is likelier than all others; no option is
    where one is no number, as of a model that has come apart."""
    return (each[:, 0] > each[:, 1:].max(-1)).tolist()


def answered(renderer: Renderer, prompt: str, answer: str) -> Ids:
    """The tokens that would be learnt of an answer."""
    example = Example(prompt=(Message("user", prompt),), answers=(Answer((Message("assistant", answer),)),))
    return renderer.answer(example, answer)


def retained(before: Known, after: Known, seed: int = 0) -> dict[str, tuple[float, Interval]]:
    """What is left of each skill, of all of them, and of the text: what is known after, as a share of what was before,
    with its 95% bootstrap interval. The same questions are drawn on both sides, so that what a question is worth by
    itself takes no part. Of the text, the share is perplexity before over perplexity after."""
    draw = np.random.default_rng(seed)
    found = {}
    every = [name for name in before.hits if name in after.hits]
    pairs = {name: (before.hits[name], after.hits[name]) for name in every}
    pairs["all"] = sum((then for then, _ in pairs.values()), []), sum((now for _, now in pairs.values()), [])
    for name, (then, now) in pairs.items():
        first, second = np.array(then, float), np.array(now, float)
        rows = draw.integers(0, len(first), (RESAMPLES, len(first)))
        found[name] = share(second.mean(), first.mean()), interval(shares(second[rows].mean(1), first[rows].mean(1)))
    tokens = np.array(before.tokens, float)
    less = after.nats - before.nats
    rows = draw.integers(0, len(tokens), (RESAMPLES, len(tokens)))
    drawn = -less[rows].sum(1) / tokens[rows].sum(1)
    found["text"] = power(-less.sum() / tokens.sum()), interval(np.exp(drawn.clip(-MOST, MOST)))
    return found


def power(nats: float) -> float:
    """e to so many, as far as that is a number."""
    return math.exp(min(max(nats, -MOST), MOST))


def share(after: float, before: float) -> float:
    """Where nothing was known before, nothing can be lost."""
    return float(after / before) if before else 1.0


def shares(after: np.ndarray, before: np.ndarray) -> np.ndarray:
    return np.divide(after, before, out=np.ones_like(after), where=before > 0)


def sentence(kept: dict[str, tuple[float, Interval]]) -> str:
    """The whole in a line."""
    (skills, (low, high)), (text, _) = kept["all"], kept["text"]
    times = 1 / text
    change = f"by {abs(times - 1):.1%}" if times < 100 else f"to {times:.3g} times what it was"
    return (
        f"retained: {skills:.0%} of general skills ({low:.0%} to {high:.0%}); perplexity of general text"
        f" {'up' if text < 1 else 'down'} {change}"
    )
