"""A judge in memory: verdicts are ranked by their likelihood, so that none can be malformed; texts are written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os.path import commonprefix
from pathlib import Path
from typing import Any

from ..data.example import Example, Message
from ..data.rendering.render import Renderer
from ..machine import to_ask
from ..model.engine import Engine, positions
from ..model.hub import locate
from ..model.load import load_model, load_tokenizer, load_tuned
from ..rewards._settings import Judge
from ..rewards.base import Unscored
from ..run import Data
from ..runs import RunFolder
from .question import Question
from .server import Account
from .turns import verdict

LONGEST = 1 << 20


class Local:
    """A model in memory that judges."""

    def __init__(self, judge: Judge, account: Account) -> None:
        self.judge, self.account = judge, account
        self.model, folder = causal(judge.model)
        self.folder = folder
        tokenizer = load_tokenizer(folder)
        self.renderer = Renderer(tokenizer, Data(path="none", max_length=LONGEST))
        self.engine = Engine(self.model, tokenizer, batch_size=8)

    def identity(self) -> dict[str, Any]:
        """What of it decides an answer: the weights too, which may be replaced under the same name."""
        files = sorted(self.folder.glob("*.safetensors"))
        return {"model": self.judge.model, "weights": [[one.name, *stamp(one)] for one in files]}

    def check(self) -> None:
        """It cannot stop answering."""

    def ask(self, questions: Sequence[Question]) -> list[str | int | Unscored]:
        """The verdict on each."""
        self.account.count(asked=len(questions))
        answers: list[str | int | Unscored] = [Unscored("the judge was not asked")] * len(questions)
        for options in dict.fromkeys(question.options for question in questions):
            chosen = [n for n, question in enumerate(questions) if question.options == options]
            group = [questions[n] for n in chosen]
            for n, answer in zip(chosen, self.rank(group) if options else self.write(group), strict=True):
                answers[n] = answer
        return answers

    def rank(self, questions: Sequence[Question]) -> list[str | int | Unscored]:
        """The likeliest of the options, as the JSON that would say it, in the tokens in which it would be learnt.

        What all of them begin with is read with the question, once.
        """
        options = questions[0].options
        whole = [self.answers(question) for question in questions]
        begun = [list(commonprefix(tokens)) for tokens in whole]
        starts = [self.prompt(one) + common for one, common in zip(questions, begun, strict=True)]
        endings = [[one[len(common) :] for one in tokens] for tokens, common in zip(whole, begun, strict=True)]
        known = {tuple(start): ending for start, ending in zip(starts, endings, strict=True)}

        def ranked(prompts: list[list[int]]) -> list[str | int | Unscored]:
            ranks = self.engine.rank(prompts, [known[tuple(prompt)] for prompt in prompts])
            return [options[n] for n in ranks.argmax(-1).tolist()]

        return self.within(starts, max(len(one) for ending in endings for one in ending), ranked)

    def answers(self, question: Question) -> list[list[int]]:
        """Each option as the tokens that are learnt where it is the answer."""
        asked = Example(prompt=tuple(Message(turn["role"], turn["content"]) for turn in question.asked()))
        return [self.renderer.answer(asked, verdict(question.field, option)) for option in question.options]

    def write(self, questions: Sequence[Question]) -> list[str | int | Unscored]:
        """A text, as it comes."""

        def written(prompts: list[list[int]]) -> list[str | int | Unscored]:
            said = self.engine.write(prompts, self.judge.max_tokens)
            self.account.count(tokens_out=sum(len(self.tokens(text)) for text in said))
            return [text if text.strip() else Unscored("the judge wrote nothing") for text in said]

        prompts = [self.prompt(question, words=False) for question in questions]
        return self.within(prompts, self.judge.max_tokens, written)

    def within(
        self, prompts: list[list[int]], room: int, ask: Callable[[list[list[int]]], list[str | int | Unscored]]
    ) -> list[str | int | Unscored]:
        """The answers to those prompts that leave room for so many tokens; why there is none to the others."""
        most = (positions(self.model.config) or LONGEST) - room
        short = [prompt for prompt in prompts if len(prompt) <= most]
        self.account.count(tokens_in=sum(map(len, short)))
        said = iter(ask(short) if short else [])
        return [
            next(said)
            if len(prompt) <= most
            else Unscored(f"the question has {len(prompt)} tokens, and the judge {self.judge.model} reads {most}")
            for prompt in prompts
        ]

    def prompt(self, question: Question, words: bool = True) -> list[int]:
        asked = question.asked() if words else [{"role": role, "content": text} for role, text in question.turns]
        return self.renderer.prompt([Message(turn["role"], turn["content"]) for turn in asked])

    def tokens(self, text: str) -> list[int]:
        return self.renderer.tokenizer(text, add_special_tokens=False)["input_ids"]


def stamp(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_size, found.st_mtime_ns


def causal(path: str) -> tuple[Any, Path]:
    """A model that writes, from a run or from anywhere a model may be, and the folder of its tokenizer."""
    here = Path(path).expanduser()
    if not (here / "recipe.yaml").is_file():
        folder = locate(path)
        return to_ask(load_model(folder)[0]), folder
    settings = RunFolder(here).recipe().value.model
    model = load_tuned(here, locate(settings.path), settings.precision, (), settings.adapters, settings.changes)
    return model, next(here / name for name in ("adapter", "model") if (here / name).is_dir())
