"""Rows of plain text."""

from ..example import Example
from .base import Format, format_, text_in


@format_("text")
class Text(Format):
    """A text to be continued; each line of a .txt file is one."""

    text: str = "text"
    """Column of the text."""

    def read(self, row):
        return Example(text=text_in(row, self.text))
