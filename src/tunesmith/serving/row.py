"""What is asked of the model, and each answer to it while it is written."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Protocol

import torch
from torch import Tensor

from ..model.engine import Ids
from ..rollout.each import Draw
from .text import Text, spelt


class Grammar(Protocol):
    """What an answer may be made of."""

    broken: str

    def allowed(self) -> Tensor | None:
        """[V] the tokens that may come next."""
        ...

    def accept(self, token: int) -> bool:
        """Take a token; whether the answer is whole with it and nothing may follow."""
        ...


@dataclass(frozen=True)
class Likely:
    """A token, how likely the model held it to be, and the likeliest beside it."""

    token: str
    bytes: list[int] | None
    logprob: float | None
    """None of a prompt's first token, which follows nothing."""
    top: tuple[tuple[str, list[int] | None, float], ...] = ()


@dataclass(frozen=True)
class Piece:
    """What has come of one answer since the last piece."""

    index: int
    text: str
    likely: tuple[Likely, ...] = ()
    tokens: int = 0
    finish: str | None = None
    """stop or length, with the last piece."""


@dataclass(eq=False)
class Ask:
    """One request to write, or to read."""

    model: str
    """The adapter that it is under, by the name that programs use; empty for the base."""
    prompt: Ids
    how: Draw
    most: int
    """Tokens that an answer may have."""
    n: int = 1
    seed: str | None = None
    ends: frozenset[int] = frozenset()
    """The tokens that end an answer, beside those of the model."""
    stop_ids: frozenset[int] = frozenset()
    ignore_end: bool = False
    logprobs: int | None = None
    """How many of the likeliest tokens are told; None tells of none, not even of the one that is taken."""
    grammar: Callable[[], Grammar] | None = None
    seen: dict[str, Tensor] = field(default_factory=dict)
    """What the model sees where tokens of the prompt stand for images."""
    hear: Callable[[Any], None] = lambda heard: None
    """Is given each Piece, a Fault at its place, and nothing after the last."""
    until: float = float("inf")
    """When it is given up, by time.monotonic()."""
    cancelled: bool = False
    asked: float = field(default_factory=time.monotonic)
    first: float = 0.0
    """When the first token came."""
    reused: int = 0
    """Tokens of the prompt that had been read before."""
    read: int = 0
    """Tokens of the prompt that are read by now."""

    @property
    def size(self) -> int:
        """Tokens that it may come to: its prompt, and answers as long as they may be."""
        return len(self.prompt) + self.n * self.most

    @property
    def alone(self) -> bool:
        """Whether its prompt is read by itself, for several answers, or with what is seen."""
        return self.n > 1 or bool(self.seen)


@dataclass(eq=False)
class Row:
    """One answer."""

    ask: Ask
    index: int
    text: Text
    ids: Ids = field(default_factory=list)
    said: Counter[int] = field(default_factory=Counter)
    chance: Random = field(default_factory=Random)
    grammar: Grammar | None = None
    finish: str | None = None
    pending: list[Likely] = field(default_factory=list)
    sent: int = 0

    @property
    def how(self) -> Draw:
        return self.ask.how

    @property
    def prompt(self) -> Ids:
        return self.ask.prompt

    def allowed(self) -> Tensor | None:
        return self.grammar.allowed() if self.grammar else None

    def take(self, token: int, ends: set[int], likely: Likely | None) -> Piece | None:
        """Go on by a token; what there is to show, if there is something."""
        ask = self.ask
        ended = (token in ends and not ask.ignore_end) or token in ask.stop_ids
        self.ids.append(token)
        self.said[token] += 1
        whole = self.grammar.accept(token) if self.grammar and not ended else False
        if likely is not None:
            self.pending.append(likely)
        if not ended:
            self.text.add(token)
        if ended or whole or self.text.stopped():
            self.finish = "stop"
        elif len(self.ids) >= ask.most:
            self.finish = "length"
        if ended or self.finish == "length" or whole:
            self.text.finish(self.ids[:-1] if ended else self.ids)
            if self.text.stopped():  # in what waited, or has not been looked at: it is cut there
                self.finish = "stop"
        return self.piece()

    def piece(self) -> Piece | None:
        shown = self.text.fresh(over=self.finish is not None)
        if not shown and not self.finish:
            return None
        likely, self.pending = tuple(self.pending), []
        tokens, self.sent = len(self.ids) - self.sent, len(self.ids)
        return Piece(self.index, shown, likely, tokens, self.finish)


def rows_of(ask: Ask, tokenizer: Any) -> list[Row]:
    """The answers of a request, each with luck of its own."""
    made = []
    for index in range(ask.n):
        chance = Random(f"{ask.seed}/{index}") if ask.seed is not None else Random()
        grammar = ask.grammar() if ask.grammar else None
        made.append(Row(ask, index, Text(tokenizer, ask.how.stop), chance=chance, grammar=grammar))
    return made


def told(tokenizer: Any, logits: Tensor, token: int, most: int) -> Likely:
    """How likely a token was, and which were the likeliest."""
    logp = logits.log_softmax(-1)
    best = torch.topk(logp, most) if most else None
    top = (
        tuple(
            (*spelt(tokenizer, one), value)
            for one, value in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        )
        if best
        else ()
    )
    return Likely(*spelt(tokenizer, token), max(float(logp[token]), -9999.0), top)
