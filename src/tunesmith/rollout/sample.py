"""Answers drawn from the model that learns, each token with the log-probability that it was drawn with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from ..model.engine import Engine, Ids, Prefilled

ROWS = 32
"""Answers that are written at once."""


class How(Protocol):
    """How answers are drawn; documented in objectives/_online.py."""

    @property
    def max_completion_length(self) -> int: ...
    @property
    def temperature(self) -> float: ...
    @property
    def top_p(self) -> float: ...
    @property
    def top_k(self) -> int: ...
    @property
    def min_p(self) -> float: ...
    @property
    def stop(self) -> tuple[str, ...]: ...


@dataclass
class Drawn:
    """One answer."""

    ids: Ids = field(default_factory=list)
    """Its tokens, the stop token too where it has one."""
    logp: list[float] = field(default_factory=list)
    """Of each the log-probability among all words, at the sampler's temperature."""
    ended: bool = False
    """Whether it came to an end by itself."""


def sample(engine: Engine, prompts: Sequence[Ids], how: How, seed: int, size: int = 1) -> list[Drawn]:
    """`size` answers to each prompt, those to one prompt side by side.

    What prompts have in common is read once, each prompt once for all of its answers, and an answer that has ended
    takes no more room. The same seed gives the same answers.
    """
    found = [Drawn() for _ in range(len(prompts) * size)]
    draw = torch.Generator(engine.device).manual_seed(seed)
    engine.batch_size = max(1, ROWS // size)
    for chosen, read in engine.batches(prompts):
        rows = [found[n * size + at] for n in chosen for at in range(size)]
        write(engine, repeated(read, size), rows, how, draw)
    return found


def repeated(read: Prefilled, size: int) -> Prefilled:
    """Each prompt that was read, as often as it has answers."""
    if size == 1:
        return read
    read.cache.batch_repeat_interleave(size)
    rows = (tensor.repeat_interleave(size, 0) for tensor in (read.attend, read.place, read.logits))
    return Prefilled(read.cache, *rows)


def write(engine: Engine, read: Prefilled, rows: list[Drawn], how: How, draw: torch.Generator) -> None:
    """Write answers token by token, until each has ended or is as long as it may be."""
    stops, going = engine.stops(), list(rows)
    for number in range(how.max_completion_length):
        logp = (read.logits / how.temperature).log_softmax(-1)
        token = torch.multinomial(likely(logp, how).exp(), 1, generator=draw).squeeze(-1)
        said = logp.gather(-1, token.unsqueeze(-1)).squeeze(-1).tolist()
        stays = []
        for at, (row, one, likelihood) in enumerate(zip(going, token.tolist(), said, strict=True)):
            row.ids.append(one)
            row.logp.append(likelihood)
            row.ended = one in stops or stopped(engine, row.ids, how.stop)
            if not row.ended:
                stays.append(at)
        if not stays or number + 1 == how.max_completion_length:
            return
        if len(stays) < len(going):
            going, read, token = [going[at] for at in stays], kept(read, stays), token[stays]
        read = engine.after(read, token)


def kept(read: Prefilled, stays: list[int]) -> Prefilled:
    """Those rows alone."""
    rows = torch.tensor(stays, device=read.place.device)
    read.cache.batch_select_indices(rows)
    return Prefilled(read.cache, read.attend[rows], read.place[rows], read.logits[rows])


def stopped(engine: Engine, ids: Ids, stop: tuple[str, ...]) -> bool:
    return bool(stop) and any(text in engine.tokenizer.decode(ids, skip_special_tokens=True) for text in stop)


def likely(logp: Tensor, how: How) -> Tensor:
    """[B, V] log-probabilities of the words that may be drawn, the others at minus infinity."""
    if how.top_k:
        least = logp.topk(min(how.top_k, logp.shape[-1])).values[:, -1:]
        logp = logp.masked_fill(logp < least, -torch.inf)
    if how.min_p:
        least = logp.amax(-1, keepdim=True) + torch.tensor(how.min_p).log().to(logp)
        logp = logp.masked_fill(logp < least, -torch.inf)
    if how.top_p < 1:
        ranked, order = logp.softmax(-1).sort(-1, descending=True)
        beyond = ranked.cumsum(-1) - ranked >= how.top_p  # the word that reaches it is still one of them
        logp = logp.masked_fill(beyond.scatter(-1, order, beyond), -torch.inf)
    return logp
