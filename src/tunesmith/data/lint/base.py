"""What a rule is: it looks at one row after another, and says what it found."""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from ...config.registry import Registry
from ..example import Answer, Example, Message
from ..render import Renderer, Tokens
from ..source import Row

if TYPE_CHECKING:
    from ...objectives.base import Targets

Severity = Literal["error", "warning", "note"]


class Said(NamedTuple):
    """A sentence in two languages."""

    en: str
    zh: str


@dataclass(frozen=True)
class Item:
    """A row, and what became of it."""

    row: Row
    split: str
    """train, validation or test."""
    example: Example | None = None
    """What it means; None if it could not be read."""
    tokens: list[Tokens] = field(default_factory=list)
    """Its sequences; none if there is nothing to learn."""
    fault: str | None = None
    """Why it has no example or no sequences, in words."""

    @cached_property
    def turns(self) -> tuple[Message, ...]:
        """Every message: the prompt's, then those of each answer."""
        example = self.example
        if example is None:
            return ()
        return (*example.prompt, *(message for answer in example.answers for message in answer.messages))

    @cached_property
    def text(self) -> str:
        """All that it says, a line break between parts."""
        parts = [message.content for message in self.turns]
        parts += [message.thinking for message in self.turns if message.thinking]
        if self.example and self.example.text:
            parts.append(self.example.text)
        return "\n".join(parts)

    @cached_property
    def latin(self) -> bool:
        """Whether it is all written in Latin letters, whatever the punctuation."""
        return self.text.isascii() or not OTHER_LETTERS.search(self.text)

    @cached_property
    def asked(self) -> int:
        """A hash of the prompt and what goes with it, or of the text; 0 if there is none."""
        example = self.example
        if example is None or not (example.prompt or example.text):
            return 0
        media = example.media
        more = repr((example.tools, media)) if example.tools or media.images or media.videos or media.audios else ""
        return digest(written(example.prompt), example.text or "", more)

    @cached_property
    def answered(self) -> int:
        """A hash of the answers, or of the label."""
        example = self.example
        if example is None:
            return 0
        rest = (example.label, example.labels, example.score, example.liked, example.truth, example.tokens)
        more = "" if rest == NOTHING else repr(rest)
        return digest(*[written(answer.messages) for answer in example.answers], more)


OTHER_LETTERS = re.compile("[\u0370-\u1dff\u1f00-\u1fff\u2c00-\u2dff\u2e80-\ud7ff\uf900-\ufdff\ufe70-\uffdc]")
NOTHING = (None,) * 6


def written(messages: tuple[Message, ...]) -> str:
    """Messages as one text that no others have."""
    parts = []
    for message in messages:
        parts += message.role, message.content
        if message.thinking or message.calls:
            parts.append(repr((message.thinking, message.calls)))
    return "\x01".join(parts)


def digest(*texts: str) -> int:
    """64 bits of a hash, the same in every process."""
    whole = "\x02".join(texts).encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(whole, digest_size=8).digest())


class Places:
    """Where each row looked at stands, in 16 bytes a row."""

    def __init__(self) -> None:
        self.files: dict[str, int] = {}
        self.file, self.line, self.nth = array("i"), array("q"), array("i")
        self.read: list[int] = []
        self.known: list[str] = []

    def add(self, origin: str) -> None:
        file, _, line = origin.rpartition(":")
        if not line.isdecimal():
            file, line = origin, "-1"
        number = self.files.setdefault(file, len(self.files))
        if number == len(self.read):
            self.read.append(0)
        self.file.append(number)
        self.line.append(int(line))
        self.nth.append(self.read[number])
        self.read[number] += 1

    def __len__(self) -> int:
        return len(self.file)

    @property
    def counts(self) -> dict[str, int]:
        """How many rows were looked at of each file."""
        return {file: self.read[at] for file, at in self.files.items()}

    def name(self, number: int) -> str:
        if len(self.known) != len(self.files):
            self.known = list(self.files)
        return self.known[self.file[number]]

    def __getitem__(self, number: int) -> str:
        """file:line of a row, by how many were looked at before it."""
        return self.name(number) + (f":{self.line[number]}" if self.line[number] >= 0 else "")

    def within(self, number: int) -> tuple[str, int]:
        """The file of a row, and how many of its rows came before."""
        return self.name(number), self.nth[number]


Origin = Callable[[int], str]


class Watch:
    """A rule at work on some rows. What it remembers of them is small: hashes and counts, never a row."""

    def look(self, item: Item, number: int, /) -> Said | None:
        """What is to be said of a row, if anything; `number` says how many came before it."""

    def end(self, origin: Origin) -> Iterator[tuple[int, Said]]:
        """What only all rows together show: each with the number of a row; `origin` says where that one stands."""
        yield from ()

    def grave(self, found: int, rows: int) -> bool:
        """Whether so much was found, of so many rows, that it is as severe as the rule says."""
        return found > rows * RARE


RARE = 0.001
"""An error in no more than this share of the rows is told as a warning: it spoils these rows, not the run."""


class Rule:
    """Looks at rows. Its name is its code; its docstring says, in a line, what it finds."""

    name: ClassVar[str]
    severity: ClassVar[Severity] = "warning"
    cheap: ClassVar[bool] = True
    """Whether it runs before every training."""
    removable: ClassVar[bool] = True
    """Whether taking the row out mends it, where it is an error; else the recipe or the model is to blame."""
    reads: ClassVar[Literal["rows", "tokens"]] = "rows"
    """Whether it can do without a tokenizer."""
    zh: ClassVar[str]
    """The docstring in Chinese."""
    explained: ClassVar[Said]
    """Why it matters and what to do."""

    def watch(self, renderer: Renderer | None, targets: Targets) -> Watch:
        """Begin to look at the rows of a run; without a tokenizer there is no renderer."""
        raise NotImplementedError


class Simple(Watch):
    """A watch that remembers nothing."""

    def __init__(self, look: Callable[[Item, int], Said | None]) -> None:
        self.look = look  # one call less for each row and rule


def answers(item: Item) -> tuple[Answer, ...]:
    return item.example.answers if item.example else ()


rule: Registry[Rule] = Registry("rule", "tunesmith.data.lint")
