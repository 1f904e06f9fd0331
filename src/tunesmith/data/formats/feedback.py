"""Rows of one answer and whether people liked it."""

from ..example import Answer, Example
from ._prompted import Prompted, asked
from ._turns import answered
from .base import Column, Maybe, Row, format_, only, shown


@format_("feedback")
class Feedback(Prompted):
    """prompt and completion, or one list of turns, and a label that is true where the last answer was liked."""

    prompt: Column = "prompt"
    """Column of the prompt; or of the whole dialogue, where there is no completion."""
    completion: Maybe = "completion"
    """Column of the answer; null if it is the last turn of the prompt's."""
    label: Column = "label"
    """Column of what people said: true or false."""
    input: Maybe = None
    """Column of what a prompt of text is about; joined to it by a line break."""
    history: Maybe = None
    """Column of earlier [question, answer] pairs."""

    @classmethod
    def told(cls, sample):
        for label in (name for name in ("label", "kto_tag") if sample.verdict(name)):
            for dialogue in (name for name in ("messages", "conversations") if sample.turns(name)):
                yield cls.having(prompt=dialogue, completion=None, label=label)
            if sample.said("prompt") and sample.said("completion"):
                yield cls.having(label=label)
            if sample.text("instruction") and sample.text("output"):
                more = {name: name for name in ("input", "history") if sample.kind(name)}
                yield cls.having(prompt="instruction", completion="output", label=label, **more)

    def columns(self):
        """The columns that a row must have."""
        return [column for column in (self.prompt, self.completion, self.label) if column]

    def read(self, row):
        liked = verdict(row, self.label)
        if self.completion is None:
            turns = answered(self.turns(row, self.prompt), f"column '{self.prompt}'")
            prompt, answer = turns[:-1], turns[-1:]
        else:
            answer = self.answer(row, self.completion)
            texts = isinstance(row[self.prompt], str)
            prompt = asked(row, self.prompt, self.input, self.history) if texts else self.side(row, self.prompt, "user")
            prompt = self.opened(row, prompt)
        beside = self.all_beside(row, self.prompt, self.completion)
        return Example(prompt=prompt, answers=(Answer(answer),), liked=liked, **beside)

    def write(self, example, as_turns=False):
        only(example, self, "prompt", "answers", "liked", "tools", "media")
        if example.liked is None or len(example.answers) != 1:
            raise ValueError("feedback needs one answer, and whether it was liked")
        if self.completion is None:
            row: Row = {self.prompt: self.whole(example)}
        else:
            columns = self.prompt, self.completion
            row = dict(zip(columns, self.sides(example.prompt, [example.answers[0].messages], as_turns), strict=True))
        return row | {self.label: example.liked} | self.beside_row(example)


def verdict(row: Row, column: str) -> bool:
    match row.get(column):
        case bool(liked):
            return liked
        case 0 | 1 as number:
            return number == 1
        case str(word) if word.lower() in ("true", "false", "1", "0"):
            return word.lower() in ("true", "1")
    raise ValueError(f"column '{column}' must be true or false (got {shown(row.get(column))})")
