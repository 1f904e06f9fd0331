"""Rows that are written together: they join when their prompt was read, go on by a token each, and leave at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Protocol

import torch
from torch import Tensor

from .memory import Memory

Read = Callable[..., Any]
"""What the model makes of tokens `[B, T]` at places `[B, T]`; more inputs by name (`Engine.read`)."""


@dataclass
class Prefilled:
    """A batch of prompts that the model has read: its memory of them, and what it would say next."""

    cache: Any
    attend: Tensor  # [B, T] 0 where it is padding
    place: Tensor  # [B] position of the next token
    logits: Tensor  # [B, V] of the next token

    def times(self, size: int) -> Prefilled:
        """Each prompt as often as it has answers, side by side."""
        if size == 1:
            return self
        return self.kept([row for row in range(len(self.place)) for _ in range(size)])

    def kept(self, rows: Sequence[int]) -> Prefilled:
        """Those rows alone, as often as they are named."""
        at = torch.tensor(rows, device=self.place.device)
        self.cache.reorder_cache(at)  # which every kind of cache can, states of recurrent layers too
        return Prefilled(self.cache, self.attend[at], self.place[at], self.logits[at])

    def after(self, token: Tensor, read: Read) -> Prefilled:
        """What the model would say next, once each row has gone on by a token."""
        attend = torch.cat([self.attend, self.attend.new_ones(len(token), 1)], 1)
        out = read(token[:, None], self.place[:, None], attention_mask=attend, past_key_values=self.cache)
        return Prefilled(out.past_key_values, attend, self.place + 1, out.logits[:, -1].float())


class Going(Protocol):
    """Rows in the order in which they joined."""

    @property
    def logits(self) -> Tensor:
        """[B, V] of each row's next token; whoever takes them may overwrite them."""
        ...

    def join(self, read: Prefilled, size: int = 1) -> None:
        """Let `size` rows go on from each prompt, those of one side by side. What was read is theirs from now on."""
        ...

    def keep(self, stays: Sequence[int]) -> None:
        """Let the other rows leave."""
        ...

    def go_on(self, token: Tensor) -> None:
        """[B] a token for each row."""
        ...


@dataclass
class Each:
    """Each batch that was read goes on in the memory that the model itself made for it: for any model at all."""

    read: Read
    parts: list[Prefilled] = field(default_factory=list)

    @property
    def logits(self) -> Tensor:
        logits = [part.logits for part in self.parts]
        return logits[0] if len(logits) == 1 else torch.cat(logits)

    def join(self, read: Prefilled, size: int = 1) -> None:
        self.parts.append(read.times(size))

    def keep(self, stays: Sequence[int]) -> None:
        mine = [
            [n - end + len(part.place) for n in stays if n < end <= n + len(part.place)] for part, end in self.ends()
        ]
        both = zip(self.parts, mine, strict=True)
        self.parts = [part if len(rows) == len(part.place) else part.kept(rows) for part, rows in both if rows]

    def go_on(self, token: Tensor) -> None:
        self.parts = [part.after(token[end - len(part.place) : end], self.read) for part, end in self.ends()]

    def ends(self) -> list[tuple[Prefilled, int]]:
        return list(zip(self.parts, accumulate(len(part.place) for part in self.parts), strict=True))


@dataclass
class Together:
    """All rows go on at once, in a memory that holds each prompt once."""

    read: Read
    memory: Memory = field(default_factory=Memory)
    said: Tensor = field(default_factory=lambda: torch.empty(0, 0))
    left: Tensor | None = None
    """Of what was said, the rows that are still here, if not all: who goes on at once need not copy it."""
    place: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))

    @property
    def logits(self) -> Tensor:
        if self.left is not None:
            self.said, self.left = self.said[self.left], None
        return self.said

    def join(self, read: Prefilled, size: int = 1) -> None:
        logits, place = (one.repeat_interleave(size, 0) for one in (read.logits, read.place))
        had = self.logits
        said = torch.cat([had, logits]) if len(had) else logits
        places = torch.cat([self.place, place]) if len(had) else place
        self.memory.join(read.cache, read.attend, size)  # where memory ends here, all is as it was
        self.said, self.place = said, places

    def keep(self, stays: Sequence[int]) -> None:
        if len(stays) < len(self.place):
            self.memory.keep(stays)
            at = torch.tensor(stays, device=self.place.device, dtype=torch.long)
            self.left = at if self.left is None else self.left[at]
            self.place = self.place[at]

    def go_on(self, token: Tensor) -> None:
        self.memory.begin()
        seen = self.memory.get_seq_length() + 1
        blank = torch.zeros((), device=token.device).expand(
            len(token), 1, 1, seen
        )  # four dimensions: handed on as it is
        more = {"attention_mask": blank, "past_key_values": self.memory, "memory": self.memory}
        out = self.read(token[:, None], self.place[:, None], **more)
        self.memory.end()
        self.said, self.left, self.place = out.logits[:, -1].float(), None, self.place + 1


def alike(read: Prefilled, model: Read, same: Callable[[Tensor, Tensor], bool]) -> bool:
    """Whether rows of this model, which has read a few prompts, may go on together: found out by trying."""
    found = []
    for going in (Each(model), Together(model)):
        going.join(deepcopy(read), 2)
        going.join(deepcopy(read))
        said = [going.logits]
        going.go_on(said[-1].argmax(-1))
        going.keep([0, 2, 3, 5])
        said.append(going.logits)
        going.go_on(said[-1].argmax(-1))
        found.append(torch.cat([*said, going.logits]))
    return same(found[1], found[0])
