"""Rows of a text and its class."""

from ..example import Example
from .base import Format, format_, text_in


@format_("labelled")
class Labelled(Format):
    """text and label."""

    text: str = "text"
    """Column of the text."""
    label: str = "label"
    """Column of the class, as a word or a number."""

    def read(self, row):
        return Example(text=text_in(row, self.text), label=text_in(row, self.label))
