"""Texts that are read and not gone on with, a piece between two passes, so that others get their tokens meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..model.engine import Engine, Ids, reading
from .lane import Lane
from .loop import AT_ONCE
from .row import Likely, told
from .text import spelt


class Pieces:
    """Texts that are read one after another."""

    largest: ClassVar[int] = AT_ONCE
    """Tokens that are read at once."""
    wanted: ClassVar[dict[str, Any]] = {}
    """What the model is asked for beside its memory."""

    def __init__(self, prompts: Sequence[Ids]) -> None:
        self.prompts = prompts
        self.number = self.at = 0
        """Which text is being read, and how much of it has been."""
        self.cache: Any = None

    def go_on(self, lane: Lane, adapter: str, most: int) -> bool:
        """Read about so many tokens more; whether all is read."""
        left = most = min(most, self.largest)
        with reading(lane.engine.model), lane.under([adapter]):
            while left > 0 and self.number < len(self.prompts):
                left -= self.part(lane.engine, most)
        return self.number == len(self.prompts)

    def part(self, engine: Engine, most: int) -> int:
        """Read on in one text; how many tokens."""
        ids = engine.begun(self.prompts[self.number])
        start, end = self.at, min(self.at + most, len(ids))
        place = torch.arange(start, end, device=engine.device).unsqueeze(0)
        attend = torch.ones(1, end, dtype=torch.long, device=engine.device)
        given = torch.tensor([ids[start:end]], device=engine.device)
        out = engine.read(given, place, attention_mask=attend, past_key_values=self.cache, **self.wanted)
        self.see(engine, ids, start, out)
        self.at, self.cache = end, out.past_key_values
        if end == len(ids):
            self.at, self.cache, self.number = 0, None, self.number + 1
        return end - start

    def see(self, engine: Engine, ids: Ids, start: int, out: Any) -> None:
        """What the model makes of the tokens from `start` on."""
        raise NotImplementedError


class Vectors(Pieces):
    """The mean of the last states of each text's tokens, of length 1."""

    wanted: ClassVar[dict[str, Any]] = {"logits_to_keep": 1, "output_hidden_states": True}

    def __init__(self, prompts: Sequence[Ids]) -> None:
        super().__init__(prompts)
        self.made: list[Tensor] = []

    def see(self, engine: Engine, ids: Ids, start: int, out: Any) -> None:
        virtual = len(ids) - len(self.prompts[self.number])
        states = out.hidden_states[-1][0].float()[max(0, virtual - start) :]
        if start == 0:
            self.made.append(torch.zeros(states.shape[-1]))
        self.made[-1] += states.sum(0).cpu()
        if start + out.hidden_states[-1].shape[1] == len(ids):
            self.made[-1] = torch.nn.functional.normalize(self.made[-1], dim=0)


class Chances(Pieces):
    """How likely each token of the texts was after those before it, of which the first has none."""

    largest: ClassVar[int] = 256  # of each token all words are seen

    def __init__(self, prompts: Sequence[Ids], most: int) -> None:
        super().__init__(prompts)
        self.most = most
        """How many of the likeliest are told."""
        self.made: list[list[Likely]] = [[] for _ in prompts]

    def see(self, engine: Engine, ids: Ids, start: int, out: Any) -> None:
        first, made = len(ids) - len(self.prompts[self.number]), self.made[self.number]
        if not made:
            made.append(Likely(*spelt(engine.tokenizer, ids[first]), None))
        for at, logits in enumerate(out.logits[0], start + 1):  # what follows the token before it
            if first < at < len(ids):
                made.append(told(engine.tokenizer, logits.float(), ids[at], self.most))
