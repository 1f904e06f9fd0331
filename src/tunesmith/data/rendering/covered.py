"""A dialogue's text without running its template: most put words around what is said and never look at it.

A template is run once with the texts of a dialogue covered. Those that it passes on it passes on covered, so that one
sees where they stand; where it asks something of one whose answer is yes or no, the question is kept with the answer.
Every other dialogue of the same speakers whose texts give the same answers takes the same way through the template, and
is written by putting its texts in their places. A template that does anything else with a text is run every time.

This is symbolic execution (King, Symbolic Execution and Program Testing, 1976) along the ways that data take.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import Any, NamedTuple, NoReturn

MOST = 1000
"""Ways through a template that are remembered."""

Step = tuple[str, tuple[Any, ...]]
"""A method of texts, and what it is given."""


Asked = list[tuple["Question", bool]]
"""What was asked of covered texts, and the answers."""


class Seen(Exception):
    """A template does with a covered text what depends on more than questions."""


def seen(*_: Any, **__: Any) -> NoReturn:
    raise Seen


class Text:
    """A text that is not known: no program can do anything with it that is not written here."""

    __slots__ = ()
    __bool__ = __len__ = __iter__ = __contains__ = __getitem__ = __eq__ = __ne__ = __hash__ = seen
    __str__ = __repr__ = __format__ = __lt__ = __le__ = __gt__ = __ge__ = __mod__ = __rmod__ = __mul__ = seen

    def __add__(self, other: Any) -> Any:
        return joined([self, other])

    def __radd__(self, other: Any) -> Any:
        return joined([other, self])


class Joined(Text):
    """Texts that are known and others that are not, one after another."""

    __slots__ = ("_parts",)

    def __init__(self, parts: Sequence[str | Covered]) -> None:
        self._parts = parts

    def __bool__(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return any(map(bool, self._parts))  # those that are known are not empty


class Covered(Text):
    """What is said in one place, or what some methods of texts make of it."""

    __slots__ = ("_asked", "_place", "_steps", "_value")

    def __init__(
        self, value: str, place: int, asked: list[tuple[Question, bool]], steps: tuple[Step, ...] = ()
    ) -> None:
        self._value, self._place, self._asked, self._steps = value, place, asked, steps

    def _made(self, name: str, *given: Any) -> Covered:
        return Covered(apply(self._value, name, given), self._place, self._asked, (*self._steps, (name, given)))

    def _answer(self, name: str, given: Any = None) -> bool:
        texts = given if isinstance(given, tuple) else (given,)
        if given is not None and not all(isinstance(text, str) for text in texts):
            raise Seen
        question = Question(self._place, self._steps, name, () if given is None else (given,))
        answer = bool(apply(self._value, name, question.given))
        self._asked.append((question, answer))
        return answer

    def __bool__(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._answer("__len__")

    def __contains__(self, text: Any) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._answer("__contains__", text)

    def __eq__(self, other: Any) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._answer("__eq__", other) if isinstance(other, str | Text) else False

    def __ne__(self, other: Any) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return not self == other

    __hash__ = seen

    def startswith(self, text: Any) -> bool:
        return self._answer("startswith", text)

    def endswith(self, text: Any) -> bool:
        return self._answer("endswith", text)

    def strip(self, letters: str | None = None) -> Covered:
        return self._made("strip", letters)

    def lstrip(self, letters: str | None = None) -> Covered:
        return self._made("lstrip", letters)

    def rstrip(self, letters: str | None = None) -> Covered:
        return self._made("rstrip", letters)

    def split(self, mark: str) -> Split:
        return Split(self, mark)


class Split(Text):
    """A covered text in pieces, of which only the first and the last are sure to be there."""

    __slots__ = ("_mark", "_whole")

    def __init__(self, whole: Covered, mark: str) -> None:
        self._whole, self._mark = whole, mark

    def __getitem__(self, place: Any) -> Covered:  # pyright: ignore[reportIncompatibleVariableOverride]
        if type(place) is not int or place not in (0, -1):
            raise Seen
        return self._whole._made("split", self._mark, place)

    __add__ = __radd__ = seen


def apply(text: str, name: str, given: tuple[Any, ...]) -> Any:
    """What a method of a text gives; of `split` the piece that is named last."""
    if name == "split":
        return text.split(given[0])[given[1]]
    return getattr(text, name)(*given)


def joined(parts: Iterable[Any]) -> Any:
    """What texts are, one after another; as plain as can be."""
    parts = list(parts)
    try:
        return "".join(parts)
    except TypeError:  # some are covered
        pass
    flat: list[str | Covered] = []
    for part in parts:
        if not isinstance(part, str | Covered | Joined):
            raise Seen
        flat += part._parts if isinstance(part, Joined) else [part]
    flat = [part for part in flat if isinstance(part, Covered) or part]
    return flat[0] if len(flat) == 1 else Joined(flat)


class Question(NamedTuple):
    """What was asked of a text that stands in a place, after some methods."""

    place: int
    steps: tuple[Step, ...]
    name: str
    given: tuple[Any, ...]

    def answer(self, texts: Sequence[str]) -> bool:
        return bool(apply(said(texts, self.place, self.steps), self.name, self.given))


def said(texts: Sequence[str], place: int, steps: tuple[Step, ...]) -> str:
    text = texts[place]
    for step in steps:
        text = apply(text, *step)
    return text


class Fork:
    """A question that decides how a template goes on."""

    __slots__ = ("question", "ways")

    def __init__(self, question: Question) -> None:
        self.question = question
        self.ways: dict[bool, Fork | Form | None] = {}


class Form:
    """What a template writes, with places for texts."""

    __slots__ = ("marks", "parts", "places")

    def __init__(self, parts: list[str | Covered], marks: list[tuple[int, int]]) -> None:
        self.parts = ["" if isinstance(part, Covered) else part for part in parts]
        found = [(n, part) for n, part in enumerate(parts) if isinstance(part, Covered)]
        self.places = [(n, part._place, part._steps) for n, part in found]
        self.marks = marks
        """What the assistant generates: from which part to before which other."""

    def filled(self, texts: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
        """The text, and where it is generated by the assistant."""
        parts = self.parts.copy()
        for n, place, steps in self.places:
            parts[n] = said(texts, place, steps) if steps else texts[place]
        if not self.marks:
            return "".join(parts), []
        ends = [0, *accumulate(map(len, parts))]
        return "".join(parts), [(ends[first], ends[end]) for first, end in self.marks]


Run = Callable[[list[Any]], tuple[list[Any], list[tuple[int, Any]]]]
"""Runs a template over texts, covered or not: the pieces that it writes, and of each that is generated how many pieces
are before it."""


class Forms:
    """The ways through one template that are known, by who speaks."""

    def __init__(self) -> None:
        self.known: dict[Any, Fork | Form | None] = {}
        self.count = 0

    def written(self, speakers: Any, texts: Sequence[Any], run: Run) -> tuple[str, list[tuple[int, int]]] | None:
        """A dialogue's text, and what of it is generated; None where the template must be run."""
        ways, way = self.known, speakers
        while way in ways:
            found = ways[way]
            if not isinstance(found, Fork):
                return found and found.filled(texts)
            ways, way = found.ways, found.question.answer(texts)
        if self.count >= MOST:
            return None
        self.count += 1
        asked: Asked = []
        covered = [text if text is None else Covered(text, n, asked) for n, text in enumerate(texts)]
        form = formed(run, covered, texts)
        ways, way = self.known, speakers
        for question, answer in asked:
            fork = ways.setdefault(way, Fork(question))
            if not isinstance(fork, Fork):
                return None
            ways, way = fork.ways, answer
        ways[way] = form
        return form and form.filled(texts)


def formed(run: Run, covered: list[Any], texts: Sequence[Any]) -> Form | None:
    """What a template makes of covered texts, if it leaves them so; tried once with the texts themselves."""
    try:
        pieces, marks = run(covered)
        flat = [parts_of(piece) for piece in pieces]
        starts = [0, *accumulate(map(len, flat))]
        parts = [part for some in flat for part in some]
        spans = []
        for before, made in marks:
            first, inside = starts[before], parts_of(made)
            end = first + len(inside)
            if len(inside) != end - first or any(a is not b for a, b in zip(parts[first:end], inside, strict=True)):
                return None
            spans.append((first, end))
        form = Form(parts, spans)
        pieces, marks = run(list(texts))
        ends = [0, *accumulate(map(len, pieces))]
        plain = "".join(pieces), [(ends[before], ends[before] + len(made)) for before, made in marks]
        return form if form.filled(texts) == plain else None
    except Exception:  # noqa: BLE001 - somebody else's program: whatever it does with covered texts, it is run without
        return None


def parts_of(text: Any) -> list[str | Covered]:
    made = joined([text])
    if isinstance(made, Joined):
        return list(made._parts)
    return [made] if isinstance(made, Covered) or made else []
