"""Rows that go on together, a token each in every pass; others join them when they have been read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..model.engine import Engine, Ids, reading
from ..model.going import Going, Prefilled
from ..rollout.each import draw_each
from .fault import Fault, bad
from .memory import WORTHWHILE, Begun, Kept, alike, new_memory, remembered
from .row import Ask, Piece, Row, rows_of, told

FAILED = "failed"
"""Why an answer ended that could not be written on."""
Under = Callable[[Sequence[str]], AbstractContextManager[None]]
"""A context in which each row of a batch is under its adapter."""


class Known(NamedTuple):
    """What has been read of a prompt."""

    length: int
    key: tuple[str, tuple[int, ...]] | None
    """The kept row that has it."""
    source: tuple[Batch, int] | None
    """The row that has it and goes on."""


@dataclass
class Batch:
    """Rows, and what the model remembers of them."""

    going: Going
    rows: list[Row]


class Lane:
    """Rows that one pass can compute: of one model, under adapters that mix."""

    def __init__(self, engine: Engine, under: Under, keep: int) -> None:
        self.engine, self.under = engine, under
        self.batches: list[Batch] = []
        self.kept = Kept(keep)
        self.ends = engine.stops()
        with reading(engine.model), under([""]):
            self.fresh, self.pads = new_memory(engine)
            self.together = engine.together  # else only those that were read together go on in one pass

    @property
    def rows(self) -> list[Row]:
        return [row for batch in self.batches for row in batch.rows]

    # --- reading ------------------------------------------------------------------------------------------------------

    def known(self, ask: Ask) -> Known:
        """How much of a prompt has been read already, and by whom: a row that has ended, or one that goes on."""
        if ask.seen:  # the same tokens may stand for another image
            return Known(0, None, None)
        prompt = self.engine.begun(ask.prompt)
        length, key = self.kept.best(ask.model, prompt)
        found = Known(length, key, None)
        for batch in self.batches if self.fresh is not None else ():
            for at, row in enumerate(batch.rows):
                may = row.ask.model == ask.model and not row.ask.seen
                there = alike(prompt, self.engine.begun(row.prompt)) if may else 0
                if there > found.length:
                    found = Known(there, None, (batch, at))
        length = min(found.length, len(prompt) - 1)  # of a whole prompt the last token is read, for what follows it
        return found._replace(length=length) if length >= WORTHWHILE else Known(0, None, None)

    def begun(self, ask: Ask) -> Begun:
        """What has been read of a prompt already, for a row to go on from."""
        length, key, source = self.known(ask)
        if key is not None:
            return self.kept.begun(key, length)
        cache = remembered(source[0].going, source[1], length) if source else None
        ids = self.engine.begun(ask.prompt)[:length]
        return Begun(ids, cache) if cache is not None else Begun([], self.fresh)

    def read(self, asks: Sequence[Ask], begun: Begun, upto: int | None = None) -> Prefilled:
        """Read prompts after what has been read of all of them; of a single one, only the first `upto` tokens."""
        prompts = [self.engine.begun(ask.prompt)[:upto] for ask in asks]
        with reading(self.engine.model), self.under([ask.model for ask in asks]):
            return self.engine.prefill(prompts, begun.ids, begun.cache, **asks[0].seen)

    def shared(self, asks: Sequence[Ask]) -> Begun:
        """What several prompts under one adapter begin with, read once for all."""
        prompts = [self.engine.begun(ask.prompt) for ask in asks]
        length = min(len(prompt) for prompt in prompts) - 1
        for prompt in prompts[1:]:
            length = min(length, alike(prompts[0], prompt))
        if length < WORTHWHILE or not self.pads or len({ask.model for ask in asks}) > 1:
            return Begun([], self.fresh)
        common = prompts[0][:length]
        with reading(self.engine.model), self.under([asks[0].model]):
            return Begun(common, self.engine.prefill([common], [], self.fresh).cache)

    def join(self, asks: Sequence[Ask], read: Prefilled) -> None:
        """Let the answers to what was read go on with the others."""
        rows = [row for ask in asks for row in rows_of(ask, self.engine.tokenizer)]
        size = asks[0].n  # a request for several answers is read by itself
        fresh = not (self.together and self.batches)
        batch = Batch(self.engine.going(), []) if fresh else self.batches[0]
        batch.going.join(read, size)
        batch.rows += rows
        if fresh:
            self.batches.append(batch)

    # --- writing ------------------------------------------------------------------------------------------------------

    def step(self, batch: Batch, heard: list[tuple[Row, Piece | Exception]]) -> None:
        """A token for each row; rows that have ended leave. What is heard of them is so also where the pass fails."""
        logits = batch.going.logits
        tokens = draw_each(logits, batch.rows)
        for at, (row, token) in enumerate(zip(batch.rows, tokens, strict=True)):
            try:
                said = self.take(row, token, logits[at])
            except Exception as error:  # noqa: BLE001 - who asked for this row is told, and the others go on
                said, row.finish = error, FAILED
            if said:
                heard.append((row, said))
        stays = [at for at, row in enumerate(batch.rows) if row.finish is None]
        tokens = [tokens[at] for at in stays]
        self.leave(batch, stays)
        if stays:
            with reading(self.engine.model), self.under([row.ask.model for row in batch.rows]):
                batch.going.go_on(torch.tensor(tokens, device=self.engine.device))

    def take(self, row: Row, token: int, logits: Tensor) -> Piece | Fault | None:
        """Let a row go on by a token; what there is to say of it."""
        most, ends = row.ask.logprobs, self.ends | row.ask.ends
        ended = token in ends and not row.ask.ignore_end
        likely = None if most is None or ended else told(self.engine.tokenizer, logits, token, most)
        piece = row.take(token, ends, likely)
        if row.grammar and row.grammar.broken:
            return bad(f"the schema asks for too much: {row.grammar.broken}", "response_format")
        return piece

    def leave(self, batch: Batch, stays: list[int]) -> None:
        """Only these rows stay; what was read of the others is kept for a while."""
        if len(stays) == len(batch.rows):
            return
        gone = set(range(len(batch.rows))) - set(stays)
        self.keep(batch, [at for at in gone if batch.rows[at].finish in ("stop", "length")])
        batch.rows = [batch.rows[at] for at in stays]
        if batch.rows:
            batch.going.keep(stays)
        else:
            self.batches.remove(batch)

    def keep(self, batch: Batch, gone: list[int]) -> None:
        for at in gone:
            row = batch.rows[at]
            ids: Ids = [*self.engine.begun(row.prompt), *row.ids[:-1]]
            if row.ask.seen or row.index > 0 or not WORTHWHILE <= len(ids) <= self.kept.tokens:
                continue
            try:
                cache = remembered(batch.going, at, len(ids))
            except (RuntimeError, MemoryError):  # no room: it would be read again
                return
            if cache is not None:
                self.kept.put(row.ask.model, ids, cache)

    def lose(self, batch: Batch) -> None:
        """Let go of a batch, what is remembered of which is not to be relied on any more."""
        if batch in self.batches:
            self.batches.remove(batch)
