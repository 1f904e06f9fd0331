"""Rows of two answers, one better than the other."""

import re
from itertools import takewhile
from typing import Any

from ..example import Answer, Example, Message
from ._prompted import Messages, Prompted, asked
from ._rated import rated, rated_row
from .base import Column, Maybe, format_, only


@format_("preference")
class Preference(Prompted):
    """chosen and rejected, each a text, a turn or a list of turns; prompt a text or a list, or what both begin with."""

    chosen: Column = "chosen"
    """Column of the better answer."""
    rejected: Column = "rejected"
    """Column of the worse one."""
    prompt: Maybe = "prompt"
    """Column of the prompt; where it is not there, the prompt is what both answers begin with."""
    input: Maybe = None
    """Column of what a prompt of text is about; joined to it by a line break."""
    history: Maybe = None
    """Column of earlier [question, answer] pairs."""
    chosen_ratings: Maybe = "chosen_ratings"
    """Column of the score that the better answer was given, or of a list of several raters' scores."""
    rejected_ratings: Maybe = "rejected_ratings"
    """The same of the worse one."""
    margin: Maybe = "margin"
    """Column of a number: by how much the better answer is better."""
    agreement: Maybe = "agreement"
    """Column of the share of raters who hold the better answer to be the better, from 0.5 to 1."""

    @classmethod
    def told(cls, sample):
        if not (sample.said("chosen") and sample.said("rejected")):
            return
        scored = {"chosen_ratings": "score_chosen", "rejected_ratings": "score_rejected"}
        more: dict[str, Any] = scored if all(map(sample.kind, scored.values())) else {}
        if sample.text("instruction"):
            more |= {name: name for name in ("input", "history") if sample.kind(name)}
            yield cls.having(prompt="instruction", **more)
            return
        prompts = [name for name in ("prompt", "question", "query") if sample.said(name)]
        prompts = prompts or [name for name in ("conversations", "messages") if sample.turns(name)]
        yield from (cls.having(prompt=name, **more) for name in prompts or ["prompt"])

    def read(self, row):
        better, worse = self.answer(row, self.chosen), self.answer(row, self.rejected)
        if self.prompt is not None and row.get(self.prompt) is not None:
            prompt, better, worse = self.after(self.question(row), better, worse)
        else:
            prompt, better, worse = self.shared(row, better, worse)
        beside = self.all_beside(row, self.prompt, self.chosen) | rated(row, self)
        return Example(prompt=self.opened(row, prompt), answers=(Answer(better), Answer(worse)), **beside)

    def question(self, row) -> Messages:
        if isinstance(row[self.prompt], str):
            return asked(row, str(self.prompt), self.input, self.history)
        return self.side(row, str(self.prompt), "user")

    def after(self, prompt: Messages, better: Messages, worse: Messages) -> tuple[Messages, Messages, Messages]:
        """The prompt and the answers after it: some files repeat it at the beginning of each."""
        if all(turns[0].role not in ("system", "user") for turns in (better, worse)):
            return prompt, better, worse
        same = begins(better, worse)
        if same == prompt or (len(prompt) == 1 and same and same[-1] == prompt[0]):
            return same, better[len(same) :], worse[len(same) :]
        raise ValueError(
            f"{self.chosen} and {self.rejected} begin with turns that are not the {self.prompt}; give answers alone,"
            f" or ignore the column with data.format.prompt=null"
        )

    def shared(self, row, better: Messages, worse: Messages) -> tuple[Messages, Messages, Messages]:
        """What both begin with as the prompt, and what is left of each."""
        if isinstance(row[self.chosen], str) and isinstance(row[self.rejected], str):
            better, worse = (transcript(row[column]) for column in (self.chosen, self.rejected))
        same = begins(better, worse)
        apart = {turns[len(same)].role for turns in (better, worse)}
        if not same or apart & {"system", "user"}:
            shared = f"{len(same)} turn{'s' * (len(same) > 1)} in common and part where one asks"
            common = f"with {shared}" if same else "with no turn in common"
            raise ValueError(
                f"has no {self.prompt or 'prompt'}, and {self.chosen} and {self.rejected} begin {common}:"
                " a pair is two answers to one prompt"
            )
        return same, better[len(same) :], worse[len(same) :]

    def write(self, example, as_turns=False):
        only(example, self, "prompt", "answers", "tools", "media", "ratings", "margin", "agreement")
        if len(example.answers) != 2:
            raise ValueError(f"preference holds two answers (got {len(example.answers)})")
        if self.prompt is None:
            raise ValueError("preference is written with a column for the prompt")
        sides = self.sides(example.prompt, [answer.messages for answer in example.answers], as_turns)
        columns = self.prompt, self.chosen, self.rejected
        return {**dict(zip(columns, sides, strict=True)), **self.beside_row(example), **rated_row(example, self)}


def begins(better: Messages, worse: Messages) -> Messages:
    """What both begin with, as long as each has something left to say."""
    both = zip(better[:-1], worse[:-1], strict=False)
    return tuple(one for one, _ in takewhile(lambda turns: turns[0] == turns[1], both))


def transcript(text: str) -> Messages:
    """The turns of a text such as '\\n\\nHuman: ...\\n\\nAssistant: ...'; any other text is one turn."""
    before, *parts = re.split(r"(?:^|\n\n)(Human|Assistant): ?", text)
    if before.strip() or not parts:
        return (Message("assistant", text),)
    roles = {"Human": "user", "Assistant": "assistant"}
    return tuple(Message(roles[role], said) for role, said in zip(parts[::2], parts[1::2], strict=True))
