"""What rewards need that stands above them: reward models in memory, and judges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..data.example import Answer, Example, Message
from ..data.rendering.render import NoTarget, Renderer
from ..errors import RecipeError
from ..model.engine import reading
from ..model.foreign import read_json
from ..model.hub import locate
from ..model.load import load_model, load_tokenizer, load_tuned, pad_as
from ..model.policy import Policy
from ..rewards.base import Rubric, Turn, Unscored, Values
from ..run import Data
from ..runs import RunFolder

LONGEST = 8192
"""Tokens of a dialogue that a reward model from elsewhere reads; its own limit may be lower."""


@dataclass
class Models:
    """Loads what rewards ask for, each once."""

    held: dict[str, Any] = field(default_factory=dict)

    def classifier(self, path: str, batch_size: int) -> Callable[[list[list[Turn]]], Values]:
        """The number that a reward model says of each dialogue."""
        if path not in self.held:
            self.held[path] = reward_model(path)
        policy, renderer = self.held[path]
        return lambda dialogues: scored(policy, renderer, dialogues, batch_size)

    def rubric(self, judge: Any, lowest: int, highest: int) -> Rubric:
        """What a judge gives answers by its rubric."""
        from .judge import open_judge

        asked = open_judge(judge)
        return lambda said: asked.rate([(one.messages, one.completion) for one in said], lowest, highest)


def reward_model(path: str) -> tuple[Policy, Renderer]:
    """A run of the objective reward, or a sequence classifier with one output, and what writes dialogues for it."""
    here = Path(path).expanduser()
    if (here / "recipe.yaml").is_file():
        folder = RunFolder(here)
        run, labels = folder.recipe().value, tuple(folder.facts.get("labels", ()))
        if len(labels) != 1:
            raise RecipeError(f"rewards: {path}: the run's objective is {run.objective.name}; name a run of reward")
        settings, base = run.model, locate(run.model.path)
        model = load_tuned(here, base, settings.precision, labels, settings.adapters, settings.changes)
        tokenizer = load_tokenizer(next((here / name for name in ("adapter", "model") if (here / name).is_dir()), base))
        pad_as(tokenizer, model)
        return Policy(model), Renderer(tokenizer, run.data)
    folder = locate(path)
    outputs = read_json(folder / "config.json").get("id2label") or {"0": "", "1": ""}  # transformers counts two
    if len(outputs) != 1:
        raise RecipeError(f"rewards: {path}: has {len(outputs)} outputs; a reward model has one")
    model, new = load_model(folder, labels=("reward",))
    if new:
        raise RecipeError(f"rewards: {path}: has no trained head ({', '.join(new)}); it is no reward model")
    tokenizer = load_tokenizer(folder)
    pad_as(tokenizer, model)
    longest = min(LONGEST, getattr(model.config, "max_position_embeddings", None) or LONGEST)
    return Policy(model.eval()), Renderer(tokenizer, Data(path=path, max_length=longest, truncation="left"))


def scored(policy: Policy, renderer: Renderer, dialogues: list[list[Turn]], batch_size: int) -> Values:
    """What the head says of each dialogue, those of like length together."""
    examples = [Example(prompt=turns[:-1], answers=(Answer(turns[-1:]),)) for turns in map(messages, dialogues)]
    rendered = renderer.render_many(examples, "answers")
    found: list[float | Unscored] = [
        Unscored(f"the reward model cannot be asked: the dialogue {made}") if isinstance(made, NoTarget) else 0.0
        for made in rendered
    ]
    there = {n: made[0] for n, made in enumerate(rendered) if not isinstance(made, NoTarget)}
    order = sorted(there, key=lambda n: len(there[n].ids))
    layout = policy.layout()
    with reading(policy.model):
        for at in range(0, len(order), batch_size):
            chosen = order[at : at + batch_size]
            batch = layout([there[n] for n in chosen]).to(policy.device)
            for n, value in zip(chosen, policy.score(batch)[:, 0].tolist(), strict=True):
                found[n] = value
    return found


def messages(turns: list[Turn]) -> tuple[Message, ...]:
    return tuple(Message(turn["role"], turn["content"]) for turn in turns)
