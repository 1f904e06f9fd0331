"""What is told of a text, where several things are learnt at once: a task, and its part of the head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .example import Example

Kind = Literal["class", "several", "score", "answers", "text"]
KINDS = {
    "class": "a class",
    "several": "several classes",
    "score": "a score",
    "answers": "answers",
    "text": "a text and nothing of it",
}
"""What may be told, in words."""
TOLD: tuple[Kind, ...] = "class", "several", "score"
"""What a head beside the language model's tells."""


@dataclass(frozen=True)
class Task:
    """One thing that is learnt, and which outputs of the head say it."""

    name: str = "labels"
    """As the recipe calls it."""
    kind: Kind = "class"
    labels: tuple[str, ...] = ()
    """Its classes."""
    first: int = 0
    """Where its outputs begin, in a head that tells of all tasks."""
    alone: bool = True
    """Whether nothing else is learnt, so that figures and outputs need not say of what they are."""

    @property
    def size(self) -> int:
        """How many outputs it has."""
        return 1 if self.kind == "score" else len(self.labels)

    @property
    def outputs(self) -> slice:
        return slice(self.first, self.first + self.size)

    @property
    def names(self) -> tuple[str, ...]:
        """What its outputs are called."""
        own = ("score",) if self.kind == "score" else self.labels
        return own if self.alone else tuple(f"{self.name}: {label}" for label in own)

    def marks(self, labels: tuple[str, ...]) -> tuple[float, ...]:
        """1 for each class that a text has, in their order."""
        return tuple(float(label in labels) for label in self.labels)


def name_of(named: str | None, kind: Kind) -> str:
    """What a task is called; labels and answers are two, though nobody named them."""
    return named or ("answers" if kind == "answers" else "labels")


def kind_of(example: Example) -> Kind:
    """What an example tells, or is to be answered."""
    if example.labels is not None:
        return "several"
    if example.score is not None:
        return "score"
    if example.label is not None:
        return "class"
    return "answers" if example.answers or example.tokens else "text"
