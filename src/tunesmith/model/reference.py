"""What the model said before it learnt anything: computed once, kept on the disk for this run and others like it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .. import cache, passport
from ..data.batch import Layout, owned
from ..data.keeping.store import learnt
from ..data.rendering.tokens import Tokens
from ..runs import versions
from .load import hushed

if TYPE_CHECKING:
    from ..methods.base import Method
    from .policy import Policy

AT_ONCE = 1024
"""Tokens that are computed together."""
FILE = "logp"


class Reference:
    """The log-probability of every token to be learnt in some sequences, float32, read where it lies."""

    def __init__(self, file: Path, targets: Sequence[int]) -> None:
        self.ends = [0, *accumulate(targets)]
        self.token = np.memmap(file, dtype="<f4", mode="r") if self.ends[-1] else np.empty(0, "<f4")

    def of(self, chosen: Sequence[int]) -> Tensor:
        """[M] those of the sequences with these numbers, in this order."""
        return torch.from_numpy(np.concatenate([self.token[self.ends[n] : self.ends[n + 1]] for n in chosen]).copy())


@dataclass(frozen=True)
class Asker:
    """Asks a model what it says before it learns anything."""

    policy: Policy
    method: Method
    layout: Layout
    key: dict[str, Any]
    """What decides the answer beside the sequences: the weights, how they are held, the machine."""
    say: Callable[[str], None]

    def ask(self, sequences: Sequence[Tokens], wanted: Sequence[int]) -> Reference:
        """The log-probabilities of the wanted sequences, out of the cache if they are there."""
        targets = learnt(sequences)
        kind = self.policy.device.type
        mixed = str(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else None
        key = {**self.key, "mixed": mixed, "code": passport.digest(passport.code()), "versions": versions()}
        made_of = json.dumps({**key, "sequences": digest(sequences, wanted)}, sort_keys=True)
        target = cache.cache() / "reference" / hashlib.sha256(made_of.encode()).hexdigest()[:16]

        def build(folder: Path) -> None:
            self.say(f"reference: {len(wanted):,} sequences, as the model is before it learns; kept for later runs")
            self.compute(folder / FILE, sequences, wanted, targets)

        folder = cache.keep(target, made_of, build, disk=1 + sum(targets) * 4 // 1_000_000)
        cache.used(folder)
        return Reference(folder / FILE, targets)

    def compute(self, file: Path, sequences: Sequence[Tokens], wanted: Sequence[int], targets: Sequence[int]) -> None:
        """Write the log-probabilities; in groups that follow the sequences' numbers, so that they round alike."""
        ends = [0, *accumulate(targets)]
        token = np.memmap(file, dtype="<f4", mode="w+", shape=(ends[-1],))
        for group in groups(wanted, sequences):
            batch = self.layout([sequences[n] for n in group]).to(self.policy.device)
            with self.policy.trying(), untaught(self.policy.model, self.method):
                found = self.policy.logp(batch).token.float().cpu().numpy()
            at = 0
            for n in group:
                token[ends[n] : ends[n + 1]] = found[at : at + targets[n]]
                at += targets[n]
        token.flush()


def groups(wanted: Sequence[int], sequences: Sequence[Tokens]) -> Iterator[list[int]]:
    """Neighbours that come to about so many tokens; answers to one prompt stay together, and it is computed once."""
    group: list[int] = []
    tokens = 0
    for family, size in families(wanted, sequences):
        if group and tokens + size > AT_ONCE:
            yield group
            group, tokens = [], 0
        group += family
        tokens += size
    if group:
        yield group


def families(wanted: Sequence[int], sequences: Sequence[Tokens]) -> Iterator[tuple[list[int], int]]:
    """Neighbours with one prompt, and how many tokens they come to, the prompt counted once."""
    family: list[int] = []
    prompt: list[int] = []
    tokens = 0
    for n in wanted:
        ids, own = sequences[n].ids, max(0, owned(sequences[n]))
        rest = len(ids) - own
        if family and own and ids[:own] == prompt and tokens + rest <= AT_ONCE:
            family.append(n)
            tokens += rest
            continue
        if family:
            yield family, tokens
        family, prompt, tokens = [n], ids[:own], len(ids)
    if family:
        yield family, tokens


def digest(sequences: Sequence[Tokens], wanted: Sequence[int]) -> str:
    """A hash of some sequences, of their numbers, and of what is learnt of them; and of how much is learnt of the
    others, which says where in a file theirs stand."""
    made = hashlib.sha256(np.array([len(sequences), *wanted, -1, *learnt(sequences)], np.int64).tobytes())
    for n in wanted:
        tokens = sequences[n]
        made.update(np.array([*tokens.ids, -1, *tokens.learn], np.int32).tobytes())
    return made.hexdigest()


@contextmanager
def untaught(model, method: Method) -> Iterator[None]:
    """Within it, a model is what it was before anything was learnt; asked for before the first step.

    What a method adds is switched off where it can be, as a soft prompt that begins at random says something already.
    An adapter that is gone on with is part of what was there before.
    """
    with hushed(), model.disable_adapter() if method.detachable and not method.adapter else nullcontext():
        yield
