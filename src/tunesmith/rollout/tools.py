"""What rewards need that stands above them: reward models in memory, and judges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.example import Answer, Example, Message
from ..data.rendering.render import NoTarget, Renderer
from ..errors import RecipeError
from ..machine import to_ask
from ..model.engine import reading
from ..model.foreign import read_json
from ..model.hub import locate
from ..model.load import load_model, load_tokenizer, load_tuned, pad_as
from ..model.policy import Policy
from ..rewards.base import Rubric, Turn, Unscored, Values
from ..run import Data
from ..runs import RunFolder

if TYPE_CHECKING:
    from torch import Tensor

LONGEST = 8192
"""Tokens of a dialogue that a reward model from elsewhere reads; its own limit may be lower."""
MOST = 10
"""Classes that are named where none of them was."""


@dataclass
class Models:
    """Loads what rewards ask for, each once."""

    held: dict[str, Any] = field(default_factory=dict)

    def classifier(self, path: str, batch_size: int, label: str | None = None) -> Callable[[list[list[Turn]]], Values]:
        """The number that a reward model says of each dialogue, or a classifier of a class."""
        labels = outputs(path)
        at = chosen(path, labels, label)
        if path not in self.held:
            self.held[path] = reward_model(path, labels)
        policy, renderer = self.held[path]
        return lambda dialogues: scored(policy, renderer, dialogues, batch_size, at)

    def rubric(self, judge: Any, lowest: int, highest: int) -> Rubric:
        """What a judge gives answers by its rubric."""
        from .by_score import ByScore
        from .judge import open_judge

        asked = open_judge(judge)
        if isinstance(asked, ByScore):
            raise asked.speaker.refusal()
        return lambda said: asked.rate([(one.messages, one.completion) for one in said], lowest, highest)


def outputs(path: str) -> tuple[str, ...]:
    """What the outputs of a run of the objective reward, or of a sequence classifier, are called."""
    here = Path(path).expanduser()
    if (here / "recipe.yaml").is_file():
        folder = RunFolder(here)
        labels = tuple(folder.facts.get("labels", ()))
        if len(labels) != 1:
            objective = folder.recipe().value.objective
            raise RecipeError(f"rewards: {path}: the run's objective is {objective.name}; name a run of reward")
        return labels
    usual = {"0": "LABEL_0", "1": "LABEL_1"}  # transformers counts two where none are named
    names = read_json(locate(path) / "config.json").get("id2label") or usual
    return tuple(str(names[number]) for number in sorted(names, key=int))


def chosen(path: str, labels: tuple[str, ...], label: str | None) -> int:
    """Which of the outputs scores. Refuses what leaves that open."""
    if label is None and len(labels) == 1:
        return 0
    if len(labels) == 1:
        raise RecipeError(f"rewards: {path}: has one output, which is its score; leave label={label} out")
    if label not in labels:
        wrong = "has" if label is None else f"has no {label} among"
        there = ", ".join(labels[:MOST]) + (", ..." if len(labels) > MOST else "")
        raise RecipeError(
            f"rewards: {path}: {wrong} {len(labels)} outputs; a reward model has one, of a classifier name in label the"
            f" class that answers are to have: {there}"
        )
    return labels.index(label)


def reward_model(path: str, labels: tuple[str, ...]) -> tuple[Policy, Renderer]:
    """A run of the objective reward, or a sequence classifier, and what writes dialogues for it."""
    here = Path(path).expanduser()
    if (here / "recipe.yaml").is_file():
        run = RunFolder(here).recipe().value
        settings, base = run.model, locate(run.model.path)
        model = load_tuned(here, base, settings.precision, labels, settings.adapters, settings.changes)
        tokenizer = load_tokenizer(next((here / name for name in ("adapter", "model") if (here / name).is_dir()), base))
        pad_as(tokenizer, model)
        return Policy(model), Renderer(tokenizer, run.data)
    folder = locate(path)
    model, new = load_model(folder, labels=labels)
    if new:
        raise RecipeError(f"rewards: {path}: has no trained head ({', '.join(new)}); it is no reward model")
    tokenizer = load_tokenizer(folder)
    pad_as(tokenizer, model)
    longest = min(LONGEST, getattr(model.config, "max_position_embeddings", None) or LONGEST)
    return Policy(to_ask(model)), Renderer(tokenizer, Data(path=path, max_length=longest, truncation="left"))


def scored(policy: Policy, renderer: Renderer, dialogues: list[list[Turn]], batch_size: int, output: int) -> Values:
    """What the head says of each dialogue by one of its outputs, those of like length together."""
    examples = [Example(prompt=turns[:-1], answers=(Answer(turns[-1:]),)) for turns in map(messages, dialogues)]
    rendered = renderer.render_many(examples, "answers")
    found: list[float | Unscored] = [
        Unscored(f"the reward model cannot be asked: the dialogue {made}") if isinstance(made, NoTarget) else 0.0
        for made in rendered
    ]
    there = {n: made[0] for n, made in enumerate(rendered) if not isinstance(made, NoTarget)}
    order = sorted(there, key=lambda n: len(there[n].ids))
    layout = policy.layout()
    alone = getattr(policy.bare.config, "problem_type", None) == "multi_label_classification"
    with reading(policy.model):
        for at in range(0, len(order), batch_size):
            some = order[at : at + batch_size]
            batch = layout([there[n] for n in some]).to(policy.device)
            for n, value in zip(some, odds(policy.score(batch), output, alone).tolist(), strict=True):
                found[n] = value
    return found


def odds(said: Tensor, output: int, alone: bool) -> Tensor:
    """[N, C] -> [N] the log-odds of a class against all others; where there are none, or each stands `alone`, what is
    said of it itself."""
    others = [number for number in range(said.shape[1]) if number != output and not alone]
    return said[:, output] - said[:, others].logsumexp(1) if others else said[:, output]


def messages(turns: list[Turn]) -> tuple[Message, ...]:
    return tuple(Message(turn["role"], turn["content"]) for turn in turns)
