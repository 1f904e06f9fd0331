"""One sequence of tokens, which of them are to be learnt, and what becomes of one that is too long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from ..task import Task


@dataclass(frozen=True)
class Tokens:
    """One sequence, and which of its tokens are to be learnt."""

    ids: list[int]
    learn: list[bool]
    label: int | None = None
    """Index of its class."""
    cut: int = 0
    """How many tokens were cut off."""
    origin: str = ""
    """Where its example was read."""
    weights: list[float] | None = None
    """How much each token counts, 0 where nothing is learnt; None where each that is learnt counts 1."""
    lost: int = 0
    """How many tokens that were to be learnt were cut off, or begin a later piece, where nothing predicts them."""
    unstopped: int = 0
    """How many of its turns to be learnt have no stop token: the template writes none, or, if `cut`, it was cut off."""
    margin: float = 0.0
    """Of a pair's sequence, by how much the better answer is better."""
    agreement: float = 1.0
    """Of a pair's sequence, the share of raters who hold the better answer to be the better."""
    grade: float = 0.0
    """Where its text stands on a scale."""
    marks: tuple[float, ...] = ()
    """Of a text that may have several classes, 1 for each that it has."""
    task: Task | None = None
    """Which of a run's tasks it is of."""


RATED = {"margin": Tokens.margin, "agreement": Tokens.agreement, "grade": Tokens.grade}
"""What raters may say of a pair or a text, and what it is where nobody says it."""


class NoTarget(ValueError):
    """An example in which nothing is to be learnt."""


class TooLong(NoTarget):
    """An example that is left out for its length, as data.truncation=drop asks; says what that costs."""

    def __init__(self, tokens: int, targets: int, longest: int) -> None:
        super().__init__(
            f"is {tokens} tokens long, more than data.max_length={longest}, and data.truncation=drop leaves it out"
        )
        self.tokens, self.targets, self.longest = tokens, targets, longest

    def __reduce__(self) -> tuple[type[TooLong], tuple[int, int, int]]:
        return TooLong, (self.tokens, self.targets, self.longest)


class Turn(NamedTuple):
    """A turn that is learnt: where its tokens stand, how much each counts, whether a stop token is the last."""

    first: int
    end: int
    weight: float
    stops: bool


def lay(ids: list[int], turns: Sequence[Turn], origin: str = "") -> Tokens:
    """A sequence of which these turns are learnt; where they overlap, a later one decides."""
    unstopped = sum(turn.weight != 0 and not turn.stops for turn in turns)
    if all(turn.weight == 1 for turn in turns):
        learn = [False] * len(ids)
        for turn in turns:
            learn[turn.first : turn.end] = [True] * (turn.end - turn.first)
        return Tokens(ids, learn, origin=origin, unstopped=unstopped)
    weights = [0.0] * len(ids)
    for turn in turns:
        weights[turn.first : turn.end] = [turn.weight] * (turn.end - turn.first)
    learn = [weight != 0 for weight in weights]
    plain = all(weight in (0, 1) for weight in weights)
    return Tokens(ids, learn, origin=origin, weights=None if plain else weights, unstopped=unstopped)


def fit(whole: Tokens, turns: Sequence[Turn], longest: int, truncation: str) -> list[Tokens]:
    """A sequence at most so long, or several. Raises NoTarget where nothing to be learnt is left, TooLong for drop."""
    size = len(whole.ids)
    if size <= longest:
        return [whole]
    targets = sum(whole.learn)
    if truncation == "drop":
        raise TooLong(size, targets, longest)
    if truncation == "split":
        windows = [range(start, min(start + longest, size)) for start in range(0, size, longest)]
    else:
        windows = [range(longest)] if truncation == "right" else [range(size - longest, size)]
    made = [part(whole, window, turns, truncation == "split") for window in windows]
    kept = [piece for piece in made if any(piece.learn[1:])]
    if not kept:
        side = "before what data.truncation=left keeps" if truncation == "left" else "past"
        raise NoTarget(f"the answer lies {side} data.max_length={longest} (it is {size} tokens long)")
    if truncation == "split":
        return kept
    return [replace(kept[0], cut=size - longest, lost=targets - sum(kept[0].learn[1:]))]


def part(whole: Tokens, window: range, turns: Sequence[Turn], goes_on: bool) -> Tokens:
    """What stands in a window of a sequence; if it goes on in the next, a turn may end there."""
    here = slice(window.start, window.stop)
    ids, learn = whole.ids[here], whole.learn[here]
    weights = whole.weights[here] if whole.weights else None
    inside = [turn for turn in turns if turn.weight and turn.first < window.stop and turn.end > window.start]
    unstopped = sum(not turn.stops if turn.end <= window.stop else not goes_on for turn in inside)
    lost = int(window.start > 0 and learn[0])
    return replace(whole, ids=ids, learn=learn, weights=weights, unstopped=unstopped, lost=lost)


def check_letters(text: str) -> None:
    """Raises NoTarget for half of a surrogate pair, which JSON can say and no encoding."""
    try:
        text.isascii() or text.encode()
    except UnicodeEncodeError as error:
        raise NoTarget(
            f"holds half of a character (U+{ord(text[error.start]):04X}), for which there is no token; mend the text"
        ) from None
