"""Rows that are token ids already."""

from ..example import Example
from .base import Column, Format, Maybe, Row, format_, given, list_in, only, shown

UNLEARNT = -100
"""The label of a token that is not learnt."""


@format_("tokenised")
class Tokenised(Format):
    """input_ids; labels, the same ids with -100 where nothing is learnt; attention_mask, 0 where it is padding."""

    input_ids: Column = "input_ids"
    """Column of the token ids."""
    labels: Maybe = "labels"
    """Column of the id that is learnt at each place, or -100; all are where there is no such column."""
    attention_mask: Maybe = "attention_mask"
    """Column of 1 for each token and 0 for padding, which is left out."""

    @classmethod
    def told(cls, sample):
        if sample.kind("input_ids") == "a list of whole numbers":
            yield cls()

    def read(self, row):
        ids = whole(row, self.input_ids)
        labels = whole(row, self.labels) if self.labels and given(row, self.labels) else ids
        if len(labels) != len(ids):
            raise ValueError(
                f"has {len(labels)} {self.labels} for {len(ids)} {self.input_ids}; a causal model learns"
                f" labels that are its input_ids, with {UNLEARNT} where nothing is to be learnt"
            )
        negative = next((token for token in ids if token < 0), None)
        if negative is not None:
            raise ValueError(f"column '{self.input_ids}' holds {negative}; a token id is at least 0")
        start, end = self.attended(row, len(ids))
        if any(label != UNLEARNT for label in (*labels[:start], *labels[end:])) and labels is not ids:
            raise ValueError(f"learns padding: where {self.attention_mask} is 0, {self.labels} must be {UNLEARNT}")
        return Example(tokens=(ids[start:end], labels[start:end]))

    def attended(self, row: Row, length: int) -> tuple[int, int]:
        """Where the tokens begin and end that are no padding."""
        if not self.attention_mask or not given(row, self.attention_mask):
            return 0, length
        mask = whole(row, self.attention_mask)
        start, end = mask.index(1) if 1 in mask else 0, len(mask) - mask[::-1].index(1) if 1 in mask else 0
        if len(mask) != length or set(mask) - {0, 1} or 0 in mask[start:end]:
            raise ValueError(
                f"column '{self.attention_mask}' must be {length} ones, with zeros only where padding stands before or"
                " after them"
            )
        return start, end

    def write(self, example, as_turns=False):
        only(example, self, "tokens")
        if example.tokens is None:
            raise ValueError("tokenised needs token ids; they come of a process function or of other tools")
        ids, labels = example.tokens
        if self.labels is None and labels != ids:
            raise ValueError("tokenised cannot hold what is learnt, which has no column")
        return {self.input_ids: [*ids]} | ({self.labels: [*labels]} if self.labels else {})


def whole(row: Row, column: str) -> tuple[int, ...]:
    """The whole numbers of a column."""
    numbers = list_in(row, column)
    wrong = next((number for number in numbers if type(number) is not int), None)
    if wrong is not None or None in numbers:
        raise ValueError(f"column '{column}' must be a list of whole numbers (has {shown(wrong)})")
    return tuple(numbers)
