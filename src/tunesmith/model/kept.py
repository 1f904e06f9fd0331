"""The states below the lowest block that learns: always the same, so computed once and kept in a mapped file."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..data.batch import pack
from ..data.keeping.store import lengths
from ..data.rendering.render import Tokens
from ..methods.base import largest_list
from .policy import Policy

AT_ONCE = 1024
"""Tokens that are computed together."""


class Kept:
    """States of every sequence behind block `depth`, made when they are first asked for.

    Sequences are computed in groups that follow their numbers, never the order of training: a sum's rounding depends
    on what is computed beside it, and a resumed run must meet the same numbers.
    """

    def __init__(self, policy: Policy, sequences: Sequence[Tokens], depth: int, file: Path) -> None:
        self.policy, self.sequences, self.depth, self.file = policy, sequences, depth, file
        self.blocks = largest_list(policy.trunk)
        self.starts = [0, *accumulate(lengths(sequences))]
        self.groups = [start // AT_ONCE for start in self.starts[:-1]]
        self.done: set[int] = set()
        self.tuples = False
        self.whole_logits = policy.bends_logits  # tried now: below() is no place for it
        weight = next(policy.trunk.parameters())
        self.width = policy.bare.config.get_text_config().hidden_size
        self.store = torch.from_file(str(file), True, self.starts[-1] * self.width, dtype=weight.dtype)
        self.store = self.store.view(self.starts[-1], self.width)

    @contextmanager
    def below(self, chosen: Sequence[int], borrowed: Sequence[int] = ()) -> Iterator[None]:
        """Within it, the model begins at the kept states of these sequences, packed in this order.

        Of each, the first ones that it borrows are left out.
        """
        for n in chosen:
            if self.groups[n] not in self.done:
                self.compute(self.groups[n])
        firsts = borrowed or [0] * len(chosen)
        spans = [(self.starts[n] + first, self.starts[n + 1]) for n, first in zip(chosen, firsts, strict=True)]
        states = torch.cat([self.store[start:end] for start, end in spans])[None].to(self.policy.device)
        before = list(self.blocks[: self.depth])
        for at, block in enumerate(before):
            self.blocks[at] = Skipped(block, states, self.tuples)
        try:
            yield
        finally:
            for at, block in enumerate(before):
                self.blocks[at] = block

    def compute(self, group: int) -> None:
        first = self.groups.index(group)
        members = range(first, first + self.groups.count(group))
        batch = pack([self.sequences[n] for n in members]).to(self.policy.device)
        with torch.no_grad():
            output = self.policy.until(batch, self.blocks[self.depth - 1])
        self.tuples = isinstance(output, tuple)
        states = output[0] if self.tuples else output
        self.store[self.starts[first] : self.starts[members[-1] + 1]] = states[0].cpu()
        self.done.add(group)

    def close(self) -> None:
        self.file.unlink(missing_ok=True)


class Skipped(nn.Module):
    """Stands where a block was, and gives the states behind it; what is asked of the block, the block answers."""

    def __init__(self, block: nn.Module, states: Tensor, in_tuple: bool) -> None:
        super().__init__()
        self.__dict__["block"] = block  # not as a part: its weights are not to be found twice
        self.states, self.in_tuple = states, in_tuple

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["block"], name)

    def forward(self, *inputs: Any, **named: Any) -> Tensor | tuple[Tensor]:
        return (self.states,) if self.in_tuple else self.states


def keep(
    policy: Policy, sequences: Sequence[Tokens], epochs: int, folder: Path, say: Callable[[str], None]
) -> Kept | None:
    """Keep what is worth keeping: the states below the lowest block that learns, if they are read more than once."""
    depth = constant_blocks(policy)
    if not depth or epochs < 2:
        return None
    blocks = len(largest_list(policy.trunk))
    tokens = sum(lengths(sequences))
    size = tokens * policy.bare.config.get_text_config().hidden_size * next(policy.trunk.parameters()).element_size()
    where = f"the states below block {depth + 1} of {blocks}, which do not change"
    if size * 1.2 > shutil.disk_usage(folder).free:
        say(f"{where}, are computed anew each time: keeping them takes {size / 1e6:,.0f} MB, and the disk has less")
        return None
    say(f"{where}, are computed once and kept: {size / 1e6:,.0f} MB until training ends")
    return Kept(policy, sequences, depth, folder / "states.bin")


def constant_blocks(policy: Policy) -> int:
    """How many blocks, from the first, give the same states each time: none of them learns, or drops at random."""
    if not any(weight.requires_grad for weight in policy.model.parameters()):
        return 0
    blocks, batch = largest_list(policy.trunk), pack(policy.samples).to(policy.device)
    depth = 0
    for block in blocks:
        first, second = (policy.until(batch, block) for _ in range(2))
        states = [output[0] if isinstance(output, tuple) else output for output in (first, second)]
        if states[0].requires_grad or not torch.equal(*states) or (isinstance(first, tuple) and len(first) > 1):
            break
        depth += 1
    return depth
