"""Sequences of two answers to one prompt, which are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..example import Example
from ..ratings import rated
from .tokens import NoTarget, Tokens


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
