"""A reward model as a judge: of two answers it prefers the one that it gives the higher score, in whatever order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isnan
from pathlib import Path
from typing import Any

from ..errors import RecipeError
from ..model.foreign import read_json
from ..model.hub import locate
from ..rewards._settings import Judge
from ..rewards.base import Turn, Unscored, Values
from ..runs import RunFolder
from .judge import AtWork, Pair, Verdict
from .local import stamp
from .question import Question
from .server import Account
from .tools import Models, outputs

AT_ONCE = 16
"""Dialogues in one forward pass."""


def scores(path: str) -> bool:
    """Whether a model gives scores and writes nothing: a run of the objective reward, or a sequence classifier."""
    here = Path(path).expanduser()
    if (here / "recipe.yaml").is_file():
        return RunFolder(here).recipe().value.objective.name == "reward"
    made = read_json(locate(path) / "config.json").get("architectures") or []
    return any(str(one).endswith("ForSequenceClassification") for one in made)


@dataclass
class Scores:
    """A reward model, which cannot be asked anything in words."""

    judge: Judge
    account: Account
    models: Models = field(default_factory=Models)

    def identity(self) -> dict[str, Any]:
        """What of it decides a score: the weights too, which may be replaced under the same name."""
        here = Path(self.judge.model).expanduser()
        run = (here / "recipe.yaml").is_file()
        folders = [here / "adapter", here / "model"] if run else [locate(self.judge.model)]
        files = [file for folder in folders for file in sorted(folder.glob("*.safetensors"))]
        return {"model": self.judge.model, "scores": [[one.name, *stamp(one)] for one in files]}

    def check(self) -> None:
        """It cannot stop answering."""

    def ask(self, questions: Sequence[Question]) -> list[str | int | Unscored]:
        raise self.refusal()

    def refusal(self) -> RecipeError:
        return RecipeError(
            f"judge.model: {self.judge.model} is a reward model: it compares answers, and neither rates them by a"
            " rubric (the reward `model` gives its scores) nor rewrites them; name a model that writes"
        )

    def score(self, dialogues: list[list[Turn]]) -> Values:
        self.account.count(asked=len(dialogues))
        return self.models.classifier(self.judge.model, AT_ONCE)(dialogues)


@dataclass
class ByScore(AtWork):
    """The same judge to whoever calibrates it, or has it label. Nothing is kept: it is as quick to ask it again."""

    speaker: Scores  # pyright: ignore[reportIncompatibleVariableOverride] - it is not exchanged

    def compare(self, pairs: Sequence[Pair]) -> list[Verdict]:
        """Each answer is scored by itself, and once."""
        asked = [(pair.turns, text) for pair in pairs for text in (pair.one, pair.other)]
        once = {repr(one): one for one in asked}
        said = self.speaker.score([[*turns, {"role": "assistant", "content": text}] for turns, text in once.values()])
        known = dict(zip(once, said, strict=True))
        found = [known[repr(one)] for one in asked]
        return [higher(one, other) for one, other in zip(found[::2], found[1::2], strict=True)]


def higher(one: float | Unscored, other: float | Unscored) -> Verdict:
    """Who is preferred by these scores; what is no number says nothing of anybody."""
    if isinstance(one, Unscored) or isinstance(other, Unscored):
        return Verdict(None, None, str(one if isinstance(one, Unscored) else other))
    if isnan(one) or isnan(other):
        return Verdict(None, None, "the reward model's score is not a number")
    return Verdict(one > other, other > one)


def open_scores(judge: Judge, account: Account) -> ByScore:
    """A reward model, ready to compare."""
    if judge.rubric != Judge(model="").rubric:
        raise RecipeError(f"judge.rubric: {judge.model} is a reward model, which reads none; leave it out")
    if (count := len(outputs(judge.model))) != 1:
        raise RecipeError(
            f"judge.model: {judge.model} has {count} outputs; expected a reward model, which has one, or a model that"
            " writes"
        )
    return ByScore(judge, Scores(judge, account))
