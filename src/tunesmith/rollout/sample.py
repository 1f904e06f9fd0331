"""Answers drawn from the model that learns, each token with the log-probability that it was drawn with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..errors import Diverged
from ..model.engine import Engine, Ids, reading
from ..model.going import Going, Prefilled
from ..model.swift import swift
from ..samplers.base import Choosy, Drawn, How

ROWS = 64
"""Answers that are written at once."""
BLOCK = 256
"""Words whose chances are added up before any is looked at alone."""


def sample(
    engine: Engine, prompts: Sequence[Ids], how: How, seed: int, size: int = 1, half: bool = False
) -> list[Drawn]:
    """`size` answers to each prompt, those to one prompt side by side; with `half` by weights in 16 bits.

    What prompts have in common is read once, each prompt once for all of its answers. An answer that has ended makes
    room for those to the next prompt. The same seed gives the same answers: each has its own draws, whatever is
    written beside it.
    """
    found = [Drawn() for _ in range(len(prompts) * size)]
    draw = torch.Generator().manual_seed(seed)
    luck = torch.rand(len(found), how.max_completion_length, generator=draw, dtype=torch.float64).to(engine.device)
    with reading(engine.model), swift(engine.model, half):
        portion = ROWS // 4 if engine.together else ROWS  # who has a memory for each batch is quicker with few
        engine.batch_size = max(1, portion // size)
        waiting, going, rows = engine.batches(prompts), engine.going(), list[int]()
        while True:
            while len(rows) + engine.batch_size * size <= max(ROWS, engine.batch_size * size):
                if (chosen := admitted(waiting, going, size)) is None:
                    break
                rows += [n * size + at for n in chosen for at in range(size)]
            if not rows:
                return found
            write(engine, going, rows, found, how, luck)


def admitted(waiting: Iterator[tuple[list[int], Prefilled]], going: Going, size: int) -> list[int] | None:
    """Let answers to the next prompts join, if there are more; which prompts these are."""
    chosen, read = next(waiting, (None, None))
    if read is not None:
        going.join(read, size)
    return chosen


def write(engine: Engine, going: Going, rows: list[int], found: list[Drawn], how: How, luck: Tensor) -> None:
    """A token more for every answer that is written; those that end leave."""
    stops, stays = engine.stops(), []
    places = torch.tensor([(row, len(found[row].ids)) for row in rows], device=luck.device).T
    token, said = drawn(going.logits, how, luck[places[0], places[1]])
    for at, (row, one, likelihood) in enumerate(zip(rows, token.tolist(), said.tolist(), strict=True)):
        answer = found[row]
        answer.ids.append(one)
        answer.logp.append(likelihood)
        answer.ended = one in stops or stopped(engine, answer.ids, how.stop)
        if not answer.ended and len(answer.ids) < how.max_completion_length:
            stays.append(at)
    if len(stays) < len(rows):
        going.keep(stays)
        rows[:] = [rows[at] for at in stays]
    if rows:
        going.go_on(token[stays])


def drawn(logits: Tensor, how: How, luck: Tensor) -> tuple[Tensor, Tensor]:
    """[B, V] and [B] numbers from 0 up to 1 -> [B] a word each, and its log-probability among all words."""
    scaled = logits if how.temperature == 1 else logits / how.temperature
    top = scaled.amax(-1, keepdim=True)
    mass = (scaled - top).exp_()
    total = mass.sum(-1, keepdim=True)
    if not bool(total.isfinite().all()):
        raise Diverged("the model says nothing but NaN: its weights are no numbers any more; lower train.learning_rate")
    if how.top_k or how.min_p or how.top_p < 1:
        mass = likely(scaled.log_softmax(-1), how).exp()
    word = picked(mass, luck).unsqueeze(-1)
    return word.squeeze(-1), (scaled.gather(-1, word) - top - total.log()).squeeze(-1)


def picked(mass: Tensor, luck: Tensor) -> Tensor:
    """[B, V] and [B] -> [B] where the running sum reaches that share of the whole: first in which block, then where in
    it, as sums of all words in float64 would take longer than the model's head."""
    blocks = pad(mass, (0, -mass.shape[-1] % BLOCK)).unflatten(-1, (-1, BLOCK))
    block, left = reached(blocks.sum(-1), luck)
    inside = blocks[torch.arange(len(mass), device=mass.device), block]
    return block * BLOCK + reached(inside, left)[0]


def reached(mass: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """[B, N] and [B] -> [B] the first place where the running sum is above that share of the whole, and how far into it
    that is, as a share of its own. A place of no mass is never it."""
    ends = mass.double().cumsum(-1)
    wanted = (share * ends[:, -1]).minimum(ends[:, -1] * (1 - 1e-12)).unsqueeze(-1)
    place = torch.searchsorted(ends, wanted, right=True)
    own = mass.gather(-1, place).double()
    return place.squeeze(-1), ((wanted - ends.gather(-1, place) + own) / own).clamp(0, 1).squeeze(-1)


def stopped(engine: Engine, ids: Ids, stop: tuple[str, ...]) -> bool:
    return bool(stop) and any(text in engine.tokenizer.decode(ids, skip_special_tokens=True) for text in stop)


def likely(logp: Tensor, how: Choosy) -> Tensor:
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
