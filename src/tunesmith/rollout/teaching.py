"""From pairs that people have compared to rows that a judge is taught by: its own questions, and the verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..data.example import Example
from ..data.ratings import agreement
from ..data.writing.writers import line
from ..errors import DataError, RecipeError
from ..files import whole
from ..rewards._settings import Judge
from .calibration import different
from .judge import Pair
from .label import pairs
from .question import comparison
from .turns import verdict


@dataclass
class Taught:
    """What became of the pairs."""

    pairs: int = 0
    rows: int = 0
    """Questions written, two of each pair."""
    alike: int = 0
    """Pairs of the same answer twice; they are left out."""
    repeats: int = 0
    """Pairs that had been there before; they are left out."""
    unclear: int = 0
    """Pairs on which raters agree less than was asked for; they are left out."""


def refuse_teach(judge: Judge, out: Path) -> None:
    """Refuse what cannot be taught."""
    if out.exists():
        raise RecipeError(f"--to: {out} is there already; name another file, or remove it")
    if out.suffix != ".jsonl":
        raise RecipeError(f"--to: {out} must end with .jsonl")
    if judge.reason:
        raise RecipeError(
            "judge.reason: pairs come without reasons that could be taught; set judge.reason=false, here and to judge"
        )


def clear(found: Sequence[Example], least: float | None) -> list[Example]:
    """Those pairs on which raters agree so far."""
    if least is None:
        return [*found]
    for example in found:
        if agreement(example) is None:
            raise DataError(
                f"{example.origin}: does not say how far raters agree, by which agreement={least:g} chooses pairs; give"
                " it a column agreement, or chosen_ratings and rejected_ratings, or leave agreement out"
            )
    return [example for example in found if (agreement(example) or 0) >= least]


def teach(judge: Judge, found: Sequence[Example], out: Path) -> Taught:
    """Write the questions that this judge would be asked of each pair, of which people prefer the first answer.

    Each is asked in both orders, so that where an answer stands says nothing; verdicts are those that are ranked.
    """
    asked, done = pairs(found), Taught()
    unlike = [pair for pair in asked if pair.one.strip() != pair.other.strip()]
    once = different(unlike)
    done.alike, done.repeats, done.pairs = len(asked) - len(unlike), len(unlike) - len(once), len(once)
    if not once:
        raise DataError(f"{out}: nothing was written: there is no pair of two different answers")
    with whole(out) as beside, beside.open("w", encoding="utf-8", newline="\n") as opened:
        for pair in once:
            for better in "AB":
                opened.write(line(lesson(judge, pair, better)) + "\n")
                done.rows += 1
    return done


def lesson(judge: Judge, pair: Pair, better: str) -> dict[str, list[dict[str, str]]]:
    """The question with the better answer in this place, and the verdict, as a dialogue."""
    shown = (pair.one, pair.other) if better == "A" else (pair.other, pair.one)
    question = comparison(pair.turns, *shown, judge.rubric, judge.reason)
    return {"messages": [*question.asked(), {"role": "assistant", "content": verdict(question.field, better)}]}
