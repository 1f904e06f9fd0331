"""The questions of general skills, as a plan has them: how long they are, and in which batches they are asked."""

from __future__ import annotations

from collections.abc import Iterator
from os.path import commonprefix
from typing import TYPE_CHECKING

from ..evaluate.retention import paragraphs, questions, rendered, text
from .work import Ranked, rough

if TYPE_CHECKING:
    from ..data.rendering.render import Renderer
    from ..model.engine import Ids


def battery(size: int, renderer: Renderer | None = None) -> tuple[Ranked, ...]:
    """All that evaluate/retention.py asks, so many at once; without a tokenizer by the length of its letters."""
    groups = guessed() if renderer is None else [*(two for _, *two in rendered(renderer)), text(renderer)]
    return tuple(batch for prompts, options in groups for batch in together(size, prompts, options))


def together(size: int, prompts: list[Ids], options: list[list[Ids]]) -> Iterator[Ranked]:
    """The batches in which prompts are read and their options told (Engine.rank)."""
    alike = len(commonprefix([ids[:-1] for ids in prompts]))  # is read once
    order = sorted(range(len(prompts)), key=lambda n: -len(prompts[n]))
    for at in range(0, len(order), size):
        some = order[at : at + size]
        told = tuple(max(map(len, options[n])) for n in some)
        yield Ranked(tuple(len(prompts[n]) - alike for n in some), told, len(options[0]))


def guessed() -> Iterator[tuple[list[Ids], list[list[Ids]]]]:
    """Prompts and options of about the length that most tokenizers make of them."""
    asked = questions()
    for count in sorted({len(one.answers) for one in asked}):
        some = [one for one in asked if len(one.answers) == count]
        prompts = [[n] * (6 + rough(one.prompt)) for n, one in enumerate(some)]
        yield prompts, [[[0] * (1 + rough(answer)) for answer in one.answers] for one in some]
    told = [rough(paragraph) for paragraph in paragraphs()]
    yield [[0] for _ in told], [[[0] * length] for length in told]
