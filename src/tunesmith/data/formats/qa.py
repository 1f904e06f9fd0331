"""Rows of a question and its answer."""

from ..example import Message, dialogue
from ._beside import Dialogue
from ._turns import plain
from .base import Column, format_, only, text_in


@format_("qa")
class QA(Dialogue):
    """A question and an answer, each a text, under any of their usual names."""

    question: Column = "question"
    """Column of what is asked; query, prompt and input are known too."""
    answer: Column = "answer"
    """Column of the answer; response and output are known too."""

    @classmethod
    def told(cls, sample):
        if sample.text("instruction"):
            return
        for question in ("question", "query", "prompt", "input"):
            for answer in ("answer", "response", "output"):
                apart = (question, answer) == ("prompt", "answer")  # what is right, rather than what to say
                if sample.text(question) and sample.text(answer) and not apart:
                    yield cls.having(question=question, answer=answer)

    def read(self, row):
        asked = self.opened(row, (Message("user", text_in(row, self.question)),))
        return dialogue((*asked, Message("assistant", text_in(row, self.answer))), **self.beside(row))

    def write(self, example, as_turns=False):
        only(example, self, "prompt", "answers", "tools", "media")
        match [*example.prompt, *(turn for answer in example.answers for turn in answer.messages)]:
            case [question, answer] if plain(question, "user") and plain(answer, "assistant"):
                row = {self.question: question.content, self.answer: answer.content}
                return row | self.beside_row(example)
        raise ValueError("qa holds a question and an answer, without calls, weights or thoughts; take messages")
