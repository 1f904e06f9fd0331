"""Where in a dialogue's text each turn stands.

A turn is found in three ways, each exact. A template may mark what the assistant generates. Else an answer begins
where the text that asks for it ends, and ends where what the template is known to put around a turn says; that is
compared with the text, character by character. Where nothing is known yet, or a template writes earlier turns
differently, the dialogue is written once more with a word that occurs nowhere else in the turn's place: what stands
before and behind that word is the template's, and what is left of the text is the turn.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from os.path import commonprefix
from typing import Any, NamedTuple

from ...errors import DataError
from ..example import Message
from .dialogue import OPENED, THOUGHT, Dialogue, Refused, Tools, Writer, spoken, thought_of
from .tokens import NoTarget

KNOWN = 8
"""Shapes of turns that are kept; a template has one or two."""
THINKING = "\0"
ENDINGS: dict[tuple[str, ...], str | None] = {}
"""What templates write behind an answer, so that none is run a second time for it."""


class Span(NamedTuple):
    """Where a turn stands in the text, with the token that ends it."""

    start: int
    end: int
    stops: bool
    """Whether a special token is its end."""


class Place(NamedTuple):
    """A turn of a dialogue."""

    messages: tuple[Message, ...]
    tools: Tools
    n: int

    @property
    def message(self) -> Message:
        return self.messages[self.n]

    @property
    def last(self) -> bool:
        return self.n == len(self.messages) - 1

    def saying(self, message: Message) -> Place:
        """The same place, with another message there."""
        return self._replace(messages=(*self.messages[: self.n], message, *self.messages[self.n + 1 :]))


class Shape(NamedTuple):
    """What a template puts around what is said: before it, behind it up to the stop token, and behind that."""

    lead: str
    """With THINKING for what is thought."""
    end: str
    tail: str
    stops: bool


class Around(NamedTuple):
    """What a template writes before and behind a word: in a whole dialogue, and in one that ends with its turn."""

    ahead: str
    behind: str
    lead: str
    tail: str


class Finder:
    """Finds turns in what one tokenizer's template writes, and remembers what it puts around them."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        self.shapes: list[Shape] = []

    def spans(
        self, dialogue: Dialogue, text: str, marks: list[tuple[int, int]], wanted: Iterable[int]
    ) -> dict[int, Span]:
        """Where the wanted turns of a dialogue stand in its text, in their order."""
        answers = [n for n, message in enumerate(dialogue.messages) if message.role == "assistant"]
        marked = dict(zip(answers, marks, strict=True)) if len(answers) == len(marks) else {}
        found = {}
        for n in wanted:
            if n in marked:
                start, end = marked[n]
                found[n] = Span(start, end, self.writer.stopped(text[start:end]))
            else:
                found[n] = self.find(Place(*dialogue, n), text)
        return found

    def cut(self, dialogue: Dialogue, text: str, spans: dict[int, Span]) -> tuple[str, dict[int, Span]]:
        """A dialogue's text and turns, up to where the last one breaks off if it was cut off. Raises NoTarget."""
        *earlier, last = dialogue.messages
        if last.ended and all(message.ended for message in earlier):
            return text, spans
        if last.ended or last.calls or not last.content.strip() or not all(message.ended for message in earlier):
            raise NoTarget("has a turn that was cut off (ended: false), which only a last turn with text can be")
        word, place = absent(text), Place(*dialogue, len(earlier))
        _, behind = self.parted(place.saying(instead(last, word)).messages, word, dialogue.tools)
        if not text.endswith(behind):
            raise NoTarget(
                f"was cut off (ended: false), and what the chat template of {self.writer.name} writes behind a turn"
                " depends on what it says, so where it breaks off cannot be told"
            )
        end = len(text) - len(behind)
        return text[:end], {n: span if span.end <= end else Span(span.start, end, False) for n, span in spans.items()}

    def find(self, place: Place, text: str) -> Span:
        """Where a turn stands in its dialogue's text. Raises NoTarget where that cannot be told exactly."""
        before = self.asked(place) if place.message.role == "assistant" else None
        if before is not None and text.startswith(before) and not place.message.calls:
            for shape in self.shapes:
                if end := self.ends(shape, place, len(before), text):
                    return Span(len(before), end, shape.stops)
        return self.compared(place, text, before)

    def asked(self, place: Place) -> str | None:
        """What a model is given so that it answers here; None where a template cannot begin with an answer."""
        try:
            return self.writer.text(place.messages[: place.n], place.tools, answer=True)
        except Refused:
            if place.n:
                raise
            return None

    def ends(self, shape: Shape, place: Place, start: int, text: str) -> int:
        """Where an answer that begins at `start` ends, if it has this shape; else 0."""
        lead = shape.lead.replace(THINKING, thought_of(place.message))
        if not (place.last or shape.stops) or not text.startswith(lead, start):
            return 0
        at, content = start + len(lead), place.message.content
        for said in dict.fromkeys((content, content.strip(), spoken(place.message))):
            end = at + len(said) + len(shape.end)
            fits = text.startswith(said, at) and text.startswith(shape.end, at + len(said))
            if fits and (not place.last or text[end:] == shape.tail):
                return end
        return 0

    def compared(self, place: Place, text: str, before: str | None) -> Span:
        """Where a turn stands, by writing the dialogue with another word in its place."""
        word = absent(text)
        around = self.around(place.saying(instead(place.message, word)), word)
        stop = self.stop(around.tail, calls := bool(place.message.calls))
        size = stop.end() if stop else len(around.tail)
        agreed = len(commonprefix([around.tail, around.behind]))
        shape = Shape("", around.tail[:size], around.tail[size:], stop is not None)  # of a turn that is the last
        if size > agreed:
            stop, size = None, agreed
        start = self.begins(place, text, before, around)
        behind = around.behind[stop.start() if stop and calls else 0 :]  # a call's word stands for one argument only
        end = len(text) - len(around.behind) + size
        if not text.startswith(around.ahead[:start]) or not text.endswith(behind) or end < start:
            raise NoTarget(
                f"the chat template of {self.writer.name} writes a turn of the {place.message.role} in another way when"
                " something else is said, so what is to be learnt cannot be told apart"
            )
        if before == around.ahead[:start] and around.lead == around.ahead and not calls:
            self.keep(place.message, shape._replace(lead=around.ahead[start:]))
        return Span(start, end, stop is not None)

    def keep(self, message: Message, shape: Shape) -> None:
        """Remember a shape, and the one that a turn has that brings its own beginning."""
        if thought := thought_of(message):
            shape = shape._replace(lead=shape.lead.replace(thought, THINKING))
        new = dict.fromkeys((shape, shape._replace(lead="")))
        self.shapes = [*new, *(one for one in self.shapes if one not in new)][:KNOWN]

    def around(self, place: Place, word: str) -> Around:
        ahead, behind = self.parted(place.messages, word, place.tools)
        if place.last:
            return Around(ahead, behind, ahead, behind)
        return Around(ahead, behind, *self.parted(place.messages[: place.n + 1], word, place.tools))

    def parted(self, messages: tuple[Message, ...], word: str, tools: Tools) -> tuple[str, str]:
        ahead, found, behind = self.writer.text(messages, tools).partition(word)
        if not found:
            raise NoTarget(f"the chat template of {self.writer.name} leaves out a turn that is to be learnt")
        if word in behind:
            raise NoTarget(f"the chat template of {self.writer.name} writes a turn that is to be learnt more than once")
        return ahead, behind

    def stop(self, tail: str, calls: bool) -> re.Match[str] | None:
        """The special token that ends a turn: the first behind what is said; calls may have some of their own."""
        found = list(self.writer.special.finditer(tail))
        if not calls or not found:
            return found[0] if found else None
        return next((one for one in found if one[0] == self.writer.tokenizer.eos_token), found[-1])

    def begins(self, place: Place, text: str, before: str | None, around: Around) -> int:
        """Where a turn begins: an answer with what its prompt does not say, any other with what is said."""
        if before is not None and text.startswith(before):
            return len(before)
        if before is not None and around.lead.startswith(before) and around.ahead.endswith(around.lead[len(before) :]):
            return len(around.ahead) - len(around.lead) + len(before)
        ahead = around.ahead
        if place.message.calls or spoken(place.message) != place.message.content:
            word = absent(text)
            ahead, _ = self.parted(place.saying(replace(place.message, content=word)).messages, word, place.tools)
        if before is None:
            return len(ahead)
        sign = before.removeprefix(self.writer.text(place.messages[: place.n], place.tools))
        signs = sign, OPENED.sub("", sign)  # earlier turns may stand there as if nothing had been thought
        if sign != before and any(one and ahead.endswith(one) for one in signs):
            return len(ahead)
        raise NoTarget(
            f"the chat template of {self.writer.name} rewrites earlier turns, so the answer cannot be told apart"
            f" from its prompt, which ends with {before[-30:]!r}"
        )


def end_of_turn(tokenizer: Any) -> str | None:
    """The special token that the chat template writes behind an answer; None where it writes none."""
    if not getattr(tokenizer, "chat_template", None):
        return None
    writer = Writer(tokenizer)
    key = str(tokenizer.chat_template), writer.special.pattern, str(writer.specials)
    if key not in ENDINGS:
        word = absent("")
        try:
            _, _, behind = writer.text((Message("user", "?"), Message("assistant", word))).partition(word)
        except DataError:  # a template of another kind of dialogue
            behind = ""
        found = Finder(writer).stop(behind, calls=False)
        ENDINGS[key] = found[0] if found else None
    return ENDINGS[key]


def absent(text: str) -> str:
    """A word that a text does not have."""
    n = 0
    while f"marked{n}turn" in text:
        n += 1
    return f"marked{n}turn"


def instead(message: Message, word: str) -> Message:
    """A message that says a word instead, where it would end: in its last call if it has any, behind what it thinks."""
    if message.calls:
        last = message.calls[-1]
        key = next(reversed(last.arguments), "x")
        return replace(message, calls=(*message.calls[:-1], replace(last, arguments=last.arguments | {key: word})))
    thought = THOUGHT.match(message.content) if message.role == "assistant" else None
    return replace(message, content=(thought[0] if thought else "") + word)
