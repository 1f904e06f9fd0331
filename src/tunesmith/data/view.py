"""Sequences to look at: each token with its text, and whether it is learnt, only read, or was cut off."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Literal

from .rendering.render import Tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

State = Literal["trained", "masked", "truncated"]


@dataclass(frozen=True)
class Piece:
    """One token."""

    id: int
    text: str
    """What it adds to the text; nothing where a letter needs several tokens, but for the last of them."""
    state: State
    special: bool
    """Whether it is one of the tokenizer's special tokens."""
    weight: float
    """How much it counts in the loss."""


@dataclass(frozen=True)
class Sample:
    """A sequence, and what became of each of its tokens."""

    origin: str
    pieces: tuple[Piece, ...]
    label: str | None = None

    def count(self, state: State) -> int:
        return sum(piece.state == state for piece in self.pieces)


def sample(tokens: Tokens, uncut: Tokens, tokenizer: PreTrainedTokenizerFast, label: str | None = None) -> Sample:
    """A sequence as it is trained on, within itself as it would be if it were not cut."""
    before, after = around(tokens.ids, uncut.ids)
    ids = [*uncut.ids[:before], *tokens.ids, *uncut.ids[len(uncut.ids) - after :]] if before or after else tokens.ids
    special = set(tokenizer.all_special_ids)
    learn = [False] * before + [False, *tokens.learn[1:]] + [False] * after  # nothing stands before a first token
    weights = [0.0] * before + (tokens.weights or [1.0] * len(tokens.ids)) + [0.0] * after
    pieces = []
    for number, (token, text) in enumerate(zip(ids, texts(tokenizer, ids), strict=True)):
        cut = number < before or number >= before + len(tokens.ids)
        state: State = "truncated" if cut else "trained" if learn[number] else "masked"
        counts = weights[number] if state == "trained" else 0.0
        pieces.append(Piece(token, text, state, token in special, counts))
    return Sample(tokens.origin, tuple(pieces), label)


def around(ids: Sequence[int], uncut: Sequence[int]) -> tuple[int, int]:
    """How many tokens were cut off before and after; none where the one is no end of the other."""
    lost = len(uncut) - len(ids)
    if lost <= 0:
        return 0, 0
    if uncut[: len(ids)] == ids:
        return 0, lost
    return (lost, 0) if uncut[lost:] == ids else (0, 0)


def texts(tokenizer: Any, ids: list[int]) -> Iterator[str]:
    """What each token adds to the text of those before it."""
    start = read = 0  # what lies between them is already written, and decoded again for the spaces' sake
    for number in range(len(ids)):
        known = tokenizer.decode(ids[start:read])
        whole = tokenizer.decode(ids[start : number + 1])
        if whole.endswith("\ufffd") and number + 1 < len(ids) and number - read < 4:
            yield ""  # part of a letter
            continue
        yield whole[len(known) :]
        start, read = read, number + 1


def page(samples: Sequence[Sample], title: str) -> str:
    """The samples as one HTML page that needs nothing else; all that stands in data is escaped."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["visible"] = visible
    source = files("tunesmith.data").joinpath("view.html.jinja").read_text(encoding="utf-8")
    return environment.from_string(source).render(samples=samples, title=title)


def visible(text: str) -> str:
    """A text in which spaces at its ends, line breaks and what has no shape can be seen."""
    shown = "".join(letter if letter.isprintable() else NAMED.get(letter, "\ufffd") for letter in text)
    bare = shown.strip(" ")
    left = len(shown) - len(shown.lstrip(" ")) if bare else len(shown)
    return "·" * left + bare + "·" * (len(shown) - left - len(bare))


NAMED = {"\n": "↵", "\t": "⇥", "\r": "␍"}
