"""A row on its way, and what it says."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Generic, TypeVar

from ..script import beyond_ascii
from .example import Example, Message
from .reading.source import Row
from .rendering.render import Tokens, TooLong

Made = TypeVar("Made")


class kept(Generic[Made]):
    """functools.cached_property without the lock that it takes before Python 3.12, which costs more than what is kept
    here. What is made stands in the item from then on, and this is not asked again.
    """

    def __init__(self, make: Callable[[Any], Made]) -> None:
        self.make, self.name, self.__doc__ = make, make.__name__, make.__doc__

    def __get__(self, item: Any, kind: Any = None) -> Made:
        made = self.make(item)
        setattr(item, self.name, made)
        return made


@dataclass
class Item:
    """A row, and what became of it."""

    row: Row
    split: str
    """train, validation or test."""
    example: Example | None = None
    """What it means; None if it could not be read, or was left out on purpose."""
    tokens: Sequence[Tokens] = ()
    """Its sequences, if it is trained on; none if there is nothing to learn."""
    fault: str | None = None
    """Why it has no example or no sequences, in words."""
    too_long: TooLong | None = None
    """That it is left out for its length, as was asked for, and what that costs."""

    def lighten(self) -> None:
        """Drop what is quickly made again, so that the item can be sent to another process."""
        for name in ("turns", "text", "utf8", "beyond", "latin"):
            vars(self).pop(name, None)

    @kept
    def turns(self) -> tuple[Message, ...]:
        """Every message: the prompt's, then those of each answer."""
        if self.example is None:
            return ()
        said = self.example.prompt
        for answer in self.example.answers:
            said += answer.messages
        return said

    @kept
    def text(self) -> str:
        """All that it says, a line break between parts."""
        parts = [message.content for message in self.turns]
        parts += [message.thinking for message in self.turns if message.thinking]
        if self.example and self.example.text:
            parts.append(self.example.text)
        return "\n".join(parts)

    @kept
    def utf8(self) -> bytes:
        """The text's bytes, which can be looked through more quickly."""
        return self.text.encode("utf-8", "surrogatepass")

    @kept
    def beyond(self) -> str:
        """Its characters beyond ASCII."""
        return beyond_ascii(self.text)

    @kept
    def latin(self) -> bool:
        """Whether it is all written in Latin letters, whatever the punctuation."""
        return not OTHER_LETTERS.search(self.beyond)

    @kept
    def asked(self) -> int:
        """A hash of the prompt and what goes with it, or of the text; 0 if there is none."""
        example = self.example
        if example is None or not (example.prompt or example.text):
            return 0
        media = example.media
        more = repr((example.tools, media)) if example.tools or media.images or media.videos or media.audios else ""
        return digest(written(example.prompt), example.text or "", more)

    @kept
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
