"""The next token of each row, drawn as the row's own settings say; words that may be drawn are found as in `sample`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

import torch
from torch import Tensor

from ..model.engine import Ids
from .sample import likely, picked

COLDEST = 1e-5
"""Below this temperature the likeliest token is taken: logits that are divided by less may have no end."""


@dataclass(frozen=True)
class Draw:
    """How one row is drawn, by OpenAI's names; what they do not have, by vLLM's."""

    temperature: float = 1.0
    """0 takes the likeliest token."""
    top_p: float = 1.0
    top_k: int = 0
    """0 for all."""
    min_p: float = 0.0
    presence_penalty: float = 0.0
    """Taken from the logit of every token that the answer has."""
    frequency_penalty: float = 0.0
    """The same, times how often it has it."""
    repetition_penalty: float = 1.0
    """Divides what speaks for a token that the prompt or the answer has (CTRL, arXiv:1909.05858)."""
    logit_bias: tuple[tuple[int, float], ...] = ()
    max_completion_length: int = 0
    stop: tuple[str, ...] = ()

    @property
    def kind(self) -> tuple[float, ...]:
        """Rows of one kind are looked at together."""
        return self.temperature, self.top_p, self.top_k, self.min_p


class Drawing(Protocol):
    """A row that goes on."""

    @property
    def how(self) -> Draw: ...
    @property
    def prompt(self) -> Ids: ...
    @property
    def said(self) -> Counter[int]: ...
    @property
    def chance(self) -> Random:
        """What its draws depend on, whatever rows stand beside it."""
        ...

    def allowed(self) -> Tensor | None: ...


def draw_each(logits: Tensor, rows: Sequence[Drawing]) -> list[int]:
    """One token a row."""
    logits = bent(logits, rows)
    tokens = logits.argmax(-1)
    kinds: dict[tuple[float, ...], list[int]] = {}
    for at, row in enumerate(rows):
        if row.how.temperature >= COLDEST:
            kinds.setdefault(row.how.kind, []).append(at)
    for alike in kinds.values():
        how = rows[alike[0]].how
        mass = likely((logits[alike] / how.temperature).log_softmax(-1), how).exp()
        luck = torch.tensor([rows[at].chance.random() for at in alike], dtype=torch.float64, device=mass.device)
        tokens[alike] = picked(mass, luck)
    return tokens.tolist()


def bent(logits: Tensor, rows: Sequence[Drawing]) -> Tensor:
    """Logits after all that a row has against tokens, or for them."""
    bends = [at for at, row in enumerate(rows) if bends_logits(row)]
    masks = [(at, mask) for at, row in enumerate(rows) if (mask := row.allowed()) is not None]
    if not bends and not masks:
        return logits
    logits = logits.clone()
    for at in bends:
        bend(logits[at], rows[at])
    for at, mask in masks:
        logits[at].masked_fill_(~mask.to(logits.device), -torch.inf)
    return logits


def bends_logits(row: Drawing) -> bool:
    how = row.how
    return bool(how.logit_bias or how.presence_penalty or how.frequency_penalty or how.repetition_penalty != 1)


def bend(logits: Tensor, row: Drawing) -> None:
    """Change one row's logits where they lie."""
    how = row.how
    if how.repetition_penalty != 1:
        seen = torch.tensor(sorted({*row.prompt, *row.said}), device=logits.device)
        there = logits[seen]
        logits[seen] = torch.where(there > 0, there / how.repetition_penalty, there * how.repetition_penalty)
    if row.said and (how.presence_penalty or how.frequency_penalty):
        seen = torch.tensor(list(row.said), device=logits.device)
        often = torch.tensor(list(row.said.values()), device=logits.device, dtype=logits.dtype)
        logits[seen] -= how.presence_penalty + how.frequency_penalty * often
    for token, bias in how.logit_bias:
        logits[token] += bias
