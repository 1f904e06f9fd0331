"""Rows of a text and its class."""

from math import isfinite
from typing import Any, Literal

from ..example import Example
from .base import Column, Format, Row, format_, list_in, only, shown, text_in


@format_("labelled")
class Labelled(Format):
    """text, and label: its class, several classes, or a score."""

    text: Column = "text"
    """Column of the text."""
    label: Column = "label"
    """Column of the class, as a word or a number."""
    kind: Literal["class", "several", "score"] = "class"
    """What a label is: a class, several classes (a list), or a number on a scale."""
    separator: str | None = None
    """What stands between several classes where they are one text."""

    @classmethod
    def told(cls, sample):
        for text in (name for name in ("text", "sentence", "content") if sample.text(name)):
            for label in ("label", "labels"):
                kind = KINDS.get(sample.kind(label))
                if kind:
                    yield cls.having(text=text, label=label, kind=kind)

    def read(self, row):
        return Example(text=text_in(row, self.text), **getattr(self, f"{self.kind}_in")(row))

    def class_in(self, row: Row) -> dict[str, Any]:
        if isinstance(row.get(self.label), list):
            raise ValueError(f"column '{self.label}' holds a list; say data.format.kind=several if it is of classes")
        return {"label": text_in(row, self.label)}

    def several_in(self, row: Row) -> dict[str, Any]:
        value = row.get(self.label)
        if isinstance(value, str) and self.separator:
            words = [word.strip() for word in value.split(self.separator)] if value.strip() else []
        else:
            words = list_in(row, self.label)
        return {"labels": tuple(text_in({self.label: word}, self.label) for word in words)}

    def score_in(self, row: Row) -> dict[str, Any]:
        try:
            score = float(text_in(row, self.label))
        except ValueError:
            score = float("nan")
        if not isfinite(score) or isinstance(row.get(self.label), bool):
            raise ValueError(f"column '{self.label}' must be a number (got {shown(row.get(self.label))})")
        return {"score": score}

    def write(self, example, as_turns=False):
        part = {"class": "label", "several": "labels", "score": "score"}[self.kind]
        only(example, self, "text", part)
        value = getattr(example, part)
        if example.text is None or value is None:
            raise ValueError(f"labelled needs a text and its label; what a label is says kind (here {self.kind})")
        return {self.text: example.text, self.label: self.joined(value) if self.kind == "several" else value}

    def joined(self, words: tuple[str, ...]) -> list[str] | str:
        if not self.separator:
            return [*words]
        if any(self.separator in word or word != word.strip() or not word for word in words):
            raise ValueError(f"a class cannot be told apart from others with separator {self.separator!r} between them")
        return self.separator.join(words)


KINDS = {
    "text": "class",
    "a whole number": "class",
    "true or false": "class",
    "a number": "score",
    "a list of texts": "several",
    "a list of whole numbers": "several",
}
"""What a label is by the type of its column."""
