"""A dialogue with a run's result, in this process: its sides, how answers are written, what is said of them."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from ..config.load import dump
from ..data.example import Message
from ..data.rendering.render import Renderer
from ..errors import RecipeError
from ..model.adapter import locate_adapter, refuse_strangers, under_adapter
from ..model.engine import Engine, Ids, reading
from ..model.hub import locate
from ..model.load import hushed
from ..rollout.each import draw_each
from ..tuned import Tuned
from . import judged
from .decoding import Decoding, ways
from .models import BASE, Served
from .row import Ask, Row, rows_of
from .store import Answered, Store
from .wire import Said

log = logging.getLogger("tunesmith")

UNTUNED, TUNED = "base", "tuned"
OWN = "default"
"""PEFT's name of a run's own adapter."""


@dataclass
class Talk:
    """A dialogue. Of several sides one answers: the tuned model, what it was before, and adapters beside it."""

    tuned: Tuned
    adapters: Mapping[str, Path] = field(default_factory=dict)
    how: Decoding = field(default_factory=Decoding)
    store: Store | None = None
    rater: str = ""
    system: str = ""
    """What every dialogue begins with; without it, whatever the template says."""
    side: str = TUNED
    turns: list[Message] = field(init=False)
    last: Answered | None = None
    """The last answer."""
    kept: bool = False
    """Whether it lies in the store."""
    known: dict[str, Served] = field(default_factory=dict)
    """Sides that have answered, so that an adapter's file is summed once."""

    def __post_init__(self) -> None:
        self.forget()

    def switch(self, side: str) -> None:
        """Let another side answer, in a dialogue of its own. Raises RecipeError."""
        if side not in self.names:
            raise RecipeError(f"no side '{side}'; there are {', '.join(self.names)}")
        self.side = side
        self.forget()

    def forget(self) -> None:
        self.turns = [Message("system", self.system)] if self.system else []
        self.last, self.kept = None, False

    def begin(self, system: str) -> None:
        """Begin a dialogue with another system prompt, or with none."""
        self.system = system
        self.forget()

    @property
    def names(self) -> tuple[str, ...]:
        return (TUNED, UNTUNED, *self.adapters)

    # --- answering ----------------------------------------------------------------------------------------------------

    def say(self, text: str) -> Iterator[str]:
        """The answer, piece by piece; once it is whole it is part of the dialogue."""
        asked, said, ended = [*self.turns, Message("user", text)], "", False
        for piece, over in self.written(asked, self.how):
            said, ended = said + piece, over
            yield piece
        self.turns = [*asked, Message("assistant", said, ended=ended)]
        self.keep(asked, self.turns[-1])

    def compare(self, text: str = "") -> dict[str, str]:
        """What would be said to a text, or was to be said to the last one, in each way of writing; the dialogue stays
        as it is."""
        asked = [*self.turns, Message("user", text)] if text else self.turns[:-1]
        drawn = {name: self.written(asked, how) for name, how in ways(self.how).items()}
        return {name: "".join(piece for piece, _ in pieces) for name, pieces in drawn.items()}

    def written(self, messages: list[Message], how: Decoding) -> Iterator[tuple[str, bool]]:
        """An answer piece by piece, and with the last one whether it came to its end, or was cut off."""
        self.tuned.refuse_to_write()
        prompt = self.renderer.prompt(messages)
        with self.model_of(self.side) as model:
            engine = Engine(model, self.tuned.tokenizer)
            if how.beams > 1:
                yield beam(engine, prompt, how)
                return
            [row] = rows_of(asked_of(prompt, how), engine.tokenizer)
            for piece in engine.stream(prompt, how.max_new_tokens, drawing(engine, row)):
                yield piece, False
            yield "", row.ids[-1] in engine.stops()

    @cached_property
    def renderer(self) -> Renderer:
        return Renderer(self.tuned.tokenizer, self.tuned.run.data)

    @cached_property
    def whole(self) -> Any:
        """The tuned model, and in it the adapters beside its own."""
        model = self.tuned.model
        for name, folder in self.adapters.items():
            with hushed():
                model = under_adapter(model, folder, name)
        return model.eval()

    @contextmanager
    def model_of(self, side: str) -> Iterator[Any]:
        """A side, for as long as it answers."""
        model, own = self.whole, (self.tuned.folder.path / "adapter").is_dir()
        if side == UNTUNED:
            with self.tuned.side(base=True) as before:
                yield before
        elif side == TUNED and not own and self.adapters:
            with model.disable_adapter():
                yield model
        else:
            if self.adapters:
                model.set_adapter(OWN if side == TUNED else side)
            yield model

    # --- what is said of answers --------------------------------------------------------------------------------------

    def keep(self, asked: list[Message], said: Message) -> None:
        """Keep an answer with what it came from, as a server does."""
        sampled = {name: value for name, value in dump(self.how).items() if value is not None}
        prompt = {"messages": turns_of(asked), "tools": []}
        [answer] = turns_of([said])
        made_of = self.known.setdefault(self.side, self.served).made_of
        self.last = Answered(f"chat-{uuid4().hex}", 0, prompt, answer, made_of, sampled, self.rater)
        self.kept = False
        if self.store is not None:
            try:
                self.store.answered([self.last])
                self.kept = True
            except sqlite3.Error as error:  # the answer is worth more than the record of it
                log.error("chat: the answer could not be kept: %s", error)

    @property
    def served(self) -> Served:
        """The side as a server of the run calls it, so that feedback on it is found under one name."""
        run, base = self.tuned.folder.path.resolve(), Path(self.tuned.run.model.path).name
        base = f"{base}-base" if base == run.name else base
        if self.side == UNTUNED:
            return Served(base, self.renderer)
        own = run / "adapter"
        folder = own if self.side == TUNED else self.adapters[self.side]
        name = run.name if self.side == TUNED else self.side
        if self.side == TUNED and not own.is_dir():
            return Served(name, self.renderer, BASE, folder=run / "model")
        return Served(name, self.renderer, self.side, base, folder)

    def rate(self, thumb: Literal["up", "down"] | None = None, edit: str | None = None) -> None:
        """What somebody says of the last answer; one that is mended is what the dialogue goes on from.
        Raises RecipeError where nothing is kept, Fault where it cannot be."""
        if self.last is None:
            raise RecipeError("there is no answer to speak of yet; ask something first")
        if self.store is not None and self.kept:
            said = Said(response_id=self.last.id, thumb=thumb, edit=edit, rater=self.rater)
            judged.keep(self.store, said)
        elif edit is None and self.store is None:
            raise RecipeError("nothing is kept here; begin with chat RUN --feedback FILE.sqlite")
        elif edit is None:
            raise RecipeError("the answer could not be kept, and so nothing that is said of it; ask again")
        if edit is not None:
            self.turns[-1] = Message("assistant", edit)

    def row(self) -> dict[str, Any]:
        """The dialogue as a row to learn from."""
        if self.last is None:
            raise RecipeError("there is no dialogue to save yet; ask something first")
        return {"messages": turns_of(self.turns)}


def turns_of(messages: list[Message]) -> list[dict[str, Any]]:
    """Turns as rows have them; only of the last one does it count whether it was cut off."""
    turns: list[dict[str, Any]] = [{"role": one.role, "content": one.content} for one in messages]
    if messages and not messages[-1].ended:
        turns[-1]["ended"] = False
    return turns


def beside(tuned: Tuned, said: Mapping[str, str]) -> dict[str, Path]:
    """The folders of adapters beside a run's result, none of which stood on other weights, before any are read."""
    if not said:
        return {}
    for name in said:
        if name in (UNTUNED, TUNED):
            raise RecipeError(f"adapters: {name} is the name of a side; give the adapter another")
    found = {name: locate_adapter(path, f"adapters: {name}") for name, path in said.items()}
    own = (tuned.folder.path / "adapter").is_dir()
    base = locate(tuned.run.model.path) if own else tuned.folder.path / "model"
    refuse_strangers({f"adapters: {name}": folder for name, folder in found.items()}, base)
    return found


def asked_of(prompt: Ids, how: Decoding) -> Ask:
    """What a server would be asked under the same settings and seed."""
    return Ask(BASE, prompt, how.draw, how.max_new_tokens, seed=None if how.seed is None else str(how.seed))


def drawing(engine: Engine, row: Row):
    """What takes the next word as a server would, and notes it."""
    import torch

    def pick(logits):
        [token] = draw_each(logits, [row])
        row.ids.append(token)
        row.said[token] += 1
        return torch.tensor([token], device=logits.device)

    return pick


def beam(engine: Engine, prompt: Ids, how: Decoding) -> tuple[str, bool]:
    """The likeliest whole answer that transformers finds with so many beginnings at a time, and whether it ended."""
    import torch
    from transformers import GenerationConfig

    ends = sorted(engine.stops())
    ids = torch.tensor([prompt], device=engine.device)
    settings = GenerationConfig(
        do_sample=False, num_beams=how.beams, max_new_tokens=how.max_new_tokens, eos_token_id=ends,
        pad_token_id=ends[0] if ends else 0, repetition_penalty=how.repetition_penalty,
    )  # fmt: skip
    with reading(engine.model), hushed():
        made = engine.model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=settings)
    ids = made[0, len(prompt) :].tolist()
    return engine.tokenizer.decode(ids, skip_special_tokens=True), ids[-1] in ends
