"""Rows of plain text."""

from ..example import Example
from .base import Column, Format, format_, only, text_in


@format_("text")
class Text(Format):
    """A text to be continued; each line of a .txt file is one."""

    text: Column = "text"
    """Column of the text."""

    @classmethod
    def told(cls, sample):
        yield from (cls.having(text=name) for name in ("text", "content", "document") if sample.text(name))

    def read(self, row):
        return Example(text=text_in(row, self.text))

    def write(self, example, as_turns=False):
        only(example, self, "text")
        if example.text is None:
            raise ValueError("text needs a text")
        return {self.text: example.text}
