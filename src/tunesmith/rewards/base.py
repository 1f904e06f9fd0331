"""What a reward is: a number for each answer that a model has written, or the reason why there is none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from ..config.record import record
from ..config.registry import Registry
from ..errors import Refusal

if TYPE_CHECKING:
    from ._settings import Judge

Turn = dict[str, Any]
"""A turn as formats know it: role and content."""


@dataclass(frozen=True)
class Said:
    """An answer that a model has written, and what it answers."""

    prompt: str
    """The text of the last user's turn."""
    messages: tuple[Turn, ...]
    """All turns before the answer."""
    completion: str
    truth: str | None
    """What is right, where the data say so."""
    row: dict[str, Any]
    """The other columns of the row."""
    tokens: int
    """Length of the answer."""
    stopped: bool
    """Whether the model ended it, rather than being cut off."""


class Unscored(ValueError):
    """Why an answer could not be scored, in one sentence."""


Values = Sequence[float | Unscored]
Rubric = Callable[[Sequence[Said]], Values]


class Tools(Protocol):
    """What rewards need that stands above them: models in memory, and judges."""

    def classifier(self, path: str, batch_size: int, label: str | None) -> Callable[[list[list[Turn]]], Values]:
        """The number that a reward model says of each dialogue, or a classifier of a class."""
        ...

    def rubric(self, judge: Judge, lowest: int, highest: int) -> Rubric:
        """What a judge gives answers by its rubric, a whole number between two others."""
        ...


class Scorer:
    """A reward at work. Holds what it needs until it is closed, and counts what it could not score and why."""

    def __init__(self, values: Callable[[Sequence[Said]], Values], close: Callable[[], None] = lambda: None) -> None:
        self.values, self.close = values, close
        self.reasons: Counter[str] = Counter()

    def score(self, said: Sequence[Said]) -> list[float | None]:
        """A number for each answer; None for one that could not be scored, which is counted."""
        return [self.checked(value) for value in self.values(said)]

    def checked(self, value: float | Unscored) -> float | None:
        if not isinstance(value, Unscored) and not isfinite(value):
            value = Unscored(f"gave {value}, which is no finite number")
        if isinstance(value, Unscored):
            self.reasons[str(value)] += 1
            return None
        return float(value)

    def __enter__(self) -> Scorer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@record
class Reward:
    """Score answers. Most score `one` at a time; those that need more than the answer make a `scorer` of their own."""

    weight: float = 1.0
    """What the score is multiplied by where several are added up."""

    name: ClassVar[str]

    def refuse(self, key: str) -> None:
        """Refuse what cannot be, before anything is read; `key` is where it stands in the recipe."""

    def code(self) -> list[Path]:
        """Files that decide what it gives."""
        return []

    def one(self, said: Said) -> float:
        """What an answer is worth. Raises Unscored."""
        raise NotImplementedError

    def scorer(self, tools: Tools | None) -> Scorer:
        """The reward at work."""
        return Scorer(lambda said: [self.attempt(one) for one in said])

    def attempt(self, said: Said) -> float | Unscored:
        """What `one` gives. A model may say anything: whatever a reward cannot make of it is no end of the run."""
        try:
            return self.one(said)
        except Unscored as why:
            return why
        except Refusal:
            raise
        except Exception as error:  # noqa: BLE001 - counted, with what it was
            return Unscored(f"the reward failed: {type(error).__name__}: {str(error)[:80]}".replace("\n", " "))

    def score(self, said: Sequence[Said]) -> list[float | None]:
        """A number for each answer by a reward that needs no tools; None where there can be none."""
        with self.scorer(None) as scorer:
            return scorer.score(said)


reward: Registry[Reward] = Registry("reward", "tunesmith.rewards")


def truth_of(said: Said) -> str:
    if said.truth is None:
        raise Unscored("the row does not say what is right; use the format truth, with data.format.truth=COLUMN")
    return said.truth
