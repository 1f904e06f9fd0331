"""What a run needs that learns from the model's own answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..data.batch import Layout
from ..data.keeping.store import lengths
from ..errors import RecipeError
from ..methods.full import Full
from ..model.engine import Engine, positions
from ..model.load import load_model, quiet
from ..model.swift import halves
from ..objectives._online import Online
from ..rollout.beginning import Beginning, Reread
from ..rollout.buffer import Buffer
from ..rollout.rewarded import Rewarded
from ..rollout.score import Scoring
from ..rollout.tools import Models

if TYPE_CHECKING:
    from ..data.keeping.material import Material
    from ..model.policy import Policy
    from ..run import Run


def refuse_online(run: Run) -> None:
    """What cannot be, said before anything is read."""
    online = isinstance(run.objective, Online)
    if isinstance(run.objective, Online) and run.objective.rewarded and not run.rewards:
        raise RecipeError(
            f"rewards: objective {run.objective.name} learns from what answers are worth; name at least one reward,"
            " such as rewards.0.name=exact_match"
        )
    if run.rewards and not online:
        raise RecipeError(
            f"rewards: objective {run.objective.name} looks at none; take grpo, ppo, rloo, reinforce_pp or online_dpo"
        )
    if isinstance(run.objective, Online) and run.objective.critic_apart and run.model.max_memory is not None:
        raise RecipeError(
            "model.max_memory: weights that are elsewhere cannot be read by two; set objective.critic=shared, or leave"
            " max_memory out"
        )
    sized = run.train.packing or run.train.max_tokens_per_batch or run.train.num_train_tokens
    if online and (sized or run.train.optimizer_in_backward):
        raise RecipeError(
            "train: packing, num_train_tokens, max_tokens_per_batch and optimizer_in_backward need examples of known"
            f" length, and objective {run.objective.name} has its answers given first; leave them out"
        )
    prompts = run.train.per_device_train_batch_size * run.train.gradient_accumulation_steps
    if isinstance(run.objective, Online) and run.objective.num_mini_batches > prompts:
        raise RecipeError(
            f"objective.num_mini_batches: {run.objective.num_mini_batches} of {prompts} prompts leaves some without"
            f" any; set it to {prompts} at most, or raise train.per_device_train_batch_size"
        )
    refuse_sampler(run)


def refuse_sampler(run: Run, base: Path | None = None) -> None:
    """Refuse whom the answers cannot be drawn by; with the folder of the base, what its files say too."""
    if isinstance(run.objective, Online):
        refuse_half(run.objective)
        run.objective.sampler.refuse(run, base)


def refuse_half(objective: Online) -> None:
    if objective.sampler.half and (torch.cuda.is_available() or not halves()):
        raise RecipeError(
            "objective.sampler: half is for an x86 processor without a GPU, where torch has FBGEMM; set it to exact"
        )


def refuse_long(objective: Online, policy: Policy, longest: int) -> None:
    """Refuse prompts that leave no room for an answer within what the model, and whoever draws, has places for."""
    limits = {
        "the model knows {} positions; lower it": positions(policy.bare.config),
        "objective.sampler.max_model_len is {}; raise that": getattr(objective.sampler, "max_model_len", None),
    }
    answer, begun = objective.max_completion_length, longest + (len(policy.soft.words) if policy.soft else 0)
    for why, known in limits.items():
        if known is not None and begun + answer > known:
            raise RecipeError(
                f"objective.max_completion_length: the longest prompt has {begun} tokens and an answer up to {answer},"
                f" and {why.format(known)}, or leave longer prompts out with data.truncation=drop"
                f" data.max_length={max(1, known - answer)}"
            )


def answers(run: Run, material: Material, policy: Policy, layout: Layout, say: Callable[[str], None]) -> Buffer | None:
    """Where the answers that are learnt from are kept; none for an objective that learns from the data's."""
    objective = run.objective
    if not isinstance(objective, Online):
        return None
    held = [material.renderer.asked(example)[0].ids for example in (*material.test, *material.validation)]
    refuse_long(objective, policy, max([*lengths(material.sequences), *map(len, held)]))
    policy.temperature = objective.temperature
    if "value" in objective.looks():
        policy.add_value_head(objective.critic_apart)
    engine = Engine(policy.model, material.renderer.tokenizer)
    again = isinstance(run.method, Full) and "reference" not in objective.before()  # see `drawing`
    beginning = None if again else Beginning(policy, run.method)
    scorer = Rewarded(Scoring(run.rewards, Models()))
    given = material.sequences, material.asked
    made = Buffer(policy, objective, engine, layout, *given, scorer, run.train.seed, say, beginning)
    scorer.alarms = made.alarms
    return made


@dataclass
class Learner:
    """A run's model, as samplers see it."""

    run: Run
    base: Path
    folder: Path
    answers: Buffer

    @property
    def name(self) -> str:
        return self.run.model.path

    @property
    def dtype(self) -> str:
        return str(self.answers.policy.bare.dtype).removeprefix("torch.")

    @property
    def stops(self) -> set[int]:
        return self.answers.engine.stops()

    def save(self, folder: Path) -> None:
        with quiet():
            self.run.method.save(self.answers.policy.model, folder)


@contextmanager
def drawing(run: Run, base: Path, made: Buffer, folder: Path) -> Iterator[None]:
    """Within it answers are drawn by whom the objective names; then all that stood ready for them is let go of."""
    settings = run.model
    try:
        made.beginning = made.beginning or Reread(
            made.policy, lambda: load_model(base, settings.precision, (), settings.adapters, settings.changes)[0]
        )
        made.drawer = made.objective.sampler.open(Learner(run, base, folder, made), made.objective)
        yield
    finally:
        if made.drawer:
            made.drawer.close()
        made.scorer.close()
