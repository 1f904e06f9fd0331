"""What a row means, whatever file it came from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Call:
    """A tool that the assistant calls."""

    name: str
    arguments: dict[str, Any]
    id: str | None = None


@dataclass(frozen=True)
class Message:
    """One turn of a dialogue."""

    role: str
    """system, user, assistant or tool."""
    content: str
    weight: float | None = None
    """How much the turn counts in the loss, 0 not at all; None leaves it to `data.train_on`."""
    thinking: str | None = None
    """What the assistant thinks before it speaks."""
    calls: tuple[Call, ...] = ()
    """The tools that the assistant calls."""
    name: str | None = None
    """Of a tool's turn, which tool says this."""
    call_id: str | None = None
    """Of a tool's turn, which call it answers."""
    ended: bool = True
    """False for a last turn that was cut off: where it breaks off is no end, and none is learnt."""
    unread: tuple[str, ...] = field(default=(), compare=False, repr=False)
    """Keys that stood beside all this and mean nothing here."""


@dataclass(frozen=True)
class Answer:
    """What the assistant says after a prompt."""

    messages: tuple[Message, ...]


@dataclass(frozen=True)
class Media:
    """Paths or addresses of what a dialogue speaks of, in its order."""

    images: tuple[str, ...] = ()
    videos: tuple[str, ...] = ()
    audios: tuple[str, ...] = ()


@dataclass(frozen=True)
class Example:
    """A prompt and its answers, better ones first; or a text, which may have labels; or tokens as they are."""

    prompt: tuple[Message, ...] = ()
    answers: tuple[Answer, ...] = ()
    liked: bool | None = None
    """Whether people liked the one answer."""
    ratings: tuple[tuple[float, ...], ...] = ()
    """Of two answers, the scores that raters gave each."""
    margin: float | None = None
    """By how much the first of two answers is better than the second."""
    agreement: float | None = None
    """The share of raters who hold the first of two answers to be the better."""
    truth: str | None = None
    """What is right, for rewards to check answers against."""
    text: str | None = None
    label: str | None = None
    """The text's class."""
    labels: tuple[str, ...] | None = None
    """Its classes, where it may have several or none."""
    score: float | None = None
    """Where it stands on a scale."""
    task: str | None = None
    """Which of several tasks it is of, as the recipe calls it."""
    tokens: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    """Token ids, and of each the id that is to be learnt there, or -100."""
    tools: tuple[dict[str, Any], ...] = ()
    """JSON schemas of the tools that may be called."""
    media: Media = Media()
    others: dict[str, Any] = field(default_factory=dict, hash=False)
    """Columns that its format does not read, for rewards to look at."""
    origin: str = ""
    """Where it was read, as file:line."""

    def read_at(self, origin: str, **more: Any) -> Example:
        """The same, read there; `more` are other fields of it. Quicker than dataclasses.replace: it is done with every
        row."""
        made = object.__new__(type(self))
        vars(made).update(vars(self), origin=origin, **more)
        return made

    @property
    def paired(self) -> bool:
        """Whether it has a better answer and a worse one."""
        return self.liked is None and len(self.answers) == 2

    def likes(self, number: int) -> bool:
        """Whether people liked this answer of it; of a pair they liked the better one."""
        return number == 0 if self.liked is None else self.liked

    @property
    def gold(self) -> str | None:
        """What a good model would say: the last turn of the first answer, or the label."""
        return self.answers[0].messages[-1].content if self.answers else self.label


def dialogue(messages: tuple[Message, ...], **more: Any) -> Example:
    """A dialogue as an example: its last turn is the answer, and all before it the prompt."""
    return Example(prompt=messages[:-1], answers=(Answer(messages[-1:]),), **more)
