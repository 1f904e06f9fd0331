"""The answers of an example: how many are learnt from, whether they are there, and two that are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..example import Example, Message
from ..ratings import rated
from .tokens import NoTarget, Tokens

if TYPE_CHECKING:
    from ...objectives.base import Targets

ANSWERS: tuple[Targets, ...] = "answers", "liked", "pairs", "ranked"
"""What is learnt of answers, and not of whole texts."""
RATED: tuple[Targets, ...] = "pairs", "ranked", "liked"
"""Targets of objectives that judge whole answers: none of it is learnt that was said before."""
WRITTEN: tuple[Targets, ...] = *ANSWERS, "mixed"
"""The same, where other rows may have none."""


def answers_of(example: Example, targets: Targets) -> int:
    """How many answers of an example are learnt from; of a pair that is not said to be liked, both may be."""
    return 2 if targets in ("pairs", "ranked") or (targets == "liked" and example.paired) else 1


def check_answers(example: Example, targets: Targets) -> None:
    """Raises NoTarget for an example that has not what is to be learnt."""
    if targets in ("pairs", "ranked") and (len(example.answers) < 2 or example.tokens):
        raise NoTarget(
            "has no two answers to compare, a better and a worse one (data.format.name=preference); of single answers"
            " that were liked or not learns objective=kto, of good ones objective=sft"
        )
    if targets == "liked" and ((example.liked is None and not example.paired) or example.tokens):
        raise NoTarget(
            "does not say whether its answer was liked (data.format.name=feedback, a column with true or false), and is"
            " no pair of answers (data.format.name=preference); of good answers alone learns objective=sft"
        )
    if targets in RATED:
        check_weights((*example.prompt, *(turn for answer in example.answers for turn in answer.messages)))
    if not example.answers and not example.tokens:
        raise NoTarget(
            "has no answer; objective sft learns answers: give prompts and answers, take objective=classify for"
            " labels or objective=pretrain for plain text, or build prompts with data.format.name=template"
        )


def check_weights(turns: Sequence[Message]) -> None:
    """Raises NoTarget for turns that count more or less, where answers are judged by the sum of their tokens."""
    odd = next((turn.weight for turn in turns if turn.weight not in (None, 0, 1)), None)
    if odd is not None:
        raise NoTarget(
            f"gives a turn the weight {odd:g}, and in answers that are judged each token counts alike: expected 0 or 1;"
            " of turns that count more or less learns objective=sft"
        )


def together(
    example: Example, made: Sequence[list[Tokens] | NoTarget], written: bool = True
) -> list[Tokens] | NoTarget:
    """The sequences of answers that are compared, if each of them has one, with what raters said of them.

    Where it is not learnt how they are `written`, no stop token is missed.
    """
    found: list[Tokens] = []
    for one in made:
        if isinstance(one, NoTarget):
            return one
        if len(one) > 1:
            return NoTarget(
                "is longer than data.max_length, and its answers are compared as they are: data.truncation=split cannot"
                " be; take right, left or drop"
            )
        found += one
    better, worse = found
    if better.ids == worse.ids:
        cut = "; they differ only past data.max_length, which is to be larger" if better.cut or worse.cut else ""
        return NoTarget(f"has two answers that come to the same tokens, so that neither is the better{cut}")
    said = rated(example) | ({} if written else {"unstopped": 0})
    return [replace(tokens, **said) for tokens in found] if said else found
