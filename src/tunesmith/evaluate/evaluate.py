"""Measuring a model on held-out examples: its loss, its answers against the right ones, and some of them to read."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from ..data.batch import Batch, Layout
from ..data.example import Example
from ..data.keeping.material import Material
from ..data.rendering.render import Tokens
from ..errors import RecipeError
from ..model.engine import Engine, reading
from ..model.policy import Policy
from ..model.rows import Alone, Oracle, Rows
from ..objectives.base import Objective, Tally
from ..run import Eval
from .by_task import figures, right, rights, said
from .metrics import Scores, measure, plain, proportion, worth
from .surety import agreed, calibration

Answered = Callable[[Sequence[list[int]], Sequence[Example]], tuple[list[str], torch.Tensor, dict[str, Tally]]]
"""Prompts and their examples to what is said, what each is worth, [N], and what is watched of it."""
Heard = Callable[[list[int], Batch, dict[str, Any]], None]
"""Is told of a batch, by the numbers of its sequences, and what the objective looked at."""
WAYS = {"class": "the likeliest label", "several": "every label likelier than not", "score": "how far off its score is"}
"""How what is told of a text is judged, in words."""
SHOWN = 10
"""Answers written out for a person to read."""


@dataclass
class Measured:
    """What an evaluation found: figures, and what the model says to the first few examples."""

    scores: Scores
    said: list[str]
    each: list[float | None] = field(default_factory=list)
    """What each answer is worth, where rewards say so."""
    right: Sequence[float] = field(default_factory=list)
    """Which rows it is right about, where that is said of each; half right where it holds both answers to be level."""
    losses: list[float] = field(default_factory=list)
    """What each row adds to the loss, which is their mean, where nothing but the loss is known."""
    weights: list[float] = field(default_factory=list)
    """How many tokens, by their weight, each of those is of."""


@dataclass(frozen=True)
class Examiner:
    """Measures a model, each time on the same examples."""

    material: Material
    objective: Objective
    settings: Eval
    layout: Layout
    examples: Sequence[Example]
    answered: Answered | None = None
    """Has prompts answered, for an objective that learns from the model's own answers."""

    def measure(self, policy: Policy) -> Measured:
        """Everything that is known of how good the model is."""
        if self.objective.targets in ("label", "mixed"):
            return self.tell(policy)
        if self.objective.targets in ("pairs", "ranked", "liked"):
            return self.judge(policy)
        if self.answered:
            return self.worth(policy)
        engine = Engine(policy.model, self.material.renderer.tokenizer, self.settings.batch_size)
        prompts = [self.prompt(example) for example in self.examples]
        said = engine.write(prompts[:SHOWN], self.settings.max_new_tokens)
        if self.objective.targets == "answers" and self.task == "choice":
            return self.choose(engine, prompts, said)
        loss, losses, weights = self.by_row(policy)
        if self.objective.targets == "answers" and self.task == "exact_match":
            answers = said + engine.write(prompts[SHOWN:], self.settings.max_new_tokens)
            gold = [plain(str(example.gold)) for example in self.examples]
            return judged(gold, [plain(text) for text in answers], loss, said)
        return Measured(measure([], [], loss, len(prompts)), said, losses=losses, weights=weights)

    def look_back(self, oracle: Oracle, cutoff: int) -> None:
        """Find out what the objective wants to know of the examples before the model learns anything."""
        if self.objective.asks("baseline") and len(self.sequences) < 2:
            raise RecipeError(
                f"data.eval_size: one row is held out, and {self.objective.name} compares rows with each other; hold"
                " out two or more (eval.max_samples counts too), or measure none with eval.enabled=false"
            )
        self.rows.look_back(self.objective, oracle, range(len(self.sequences)), cutoff)

    def questions(self) -> list[dict[str, str]]:
        """The examples whose answers are written out: what is asked, and what would be right."""
        if self.objective.targets == "ranked":
            return [{"prompt": side_by_side(example), "gold": "A"} for example in self.examples[:SHOWN]]
        return [
            {
                "prompt": example.prompt[-1].content if example.prompt else str(example.text),
                "gold": right(example),
            }
            for example in self.examples[:SHOWN]
        ]

    @property
    def task(self) -> str:
        """What is measured: as asked for, or a choice where there is one."""
        if self.settings.task == "choice" and not self.material.options:
            raise RecipeError("eval.task: choice needs answers that are few and come time and again; take exact_match")
        if self.settings.task != "auto":
            return self.settings.task
        return "choice" if self.material.options else "loss"

    @property
    def way(self) -> str:
        """How answers are judged, in words."""
        if self.objective.targets in ("label", "mixed"):
            first, *others = self.material.tasks
            return "each task by itself" if others else WAYS[first.kind]
        if self.objective.targets in ("pairs", "ranked"):
            return "which answer of a pair it holds to be better"
        if self.objective.targets == "liked":
            return "whether it holds an answer to be good"
        if self.objective.targets == "prompts":
            return "what its answers are worth by the rewards"
        if self.objective.targets == "answers" and self.task == "choice":
            return f"the likeliest of {', '.join(map(repr, self.material.options))}"
        return "answers written freely" if self.task == "exact_match" else "the loss alone"

    def prompt(self, example: Example) -> list[int]:
        """What the model is asked; of a text, its beginning."""
        if self.objective.targets == "prompts":
            return self.material.renderer.asked(example)[0].ids
        if example.answers:
            return self.material.renderer.prompt(example.prompt, example.tools)
        return self.material.renderer.whole(example)[0].ids[:32]

    def choose(self, engine: Engine, prompts: list[list[int]], said: list[str]) -> Measured:
        """Rank the options by their likelihood after each prompt; the likeliest is the model's answer."""
        options = [
            [self.material.renderer.answer(example, option) for option in self.material.options]
            for example in self.examples
        ]
        ranks = engine.rank(prompts, options)
        gold = [self.material.options.index(str(example.gold)) for example in self.examples]
        count = sum(len(row[right]) for row, right in zip(options, gold, strict=True))
        loss = -float(ranks[torch.arange(len(gold)), gold].sum()) / count
        chosen = [self.material.options[n] for n in ranks.argmax(-1).tolist()]
        return judged([self.material.options[n] for n in gold], chosen, loss, said)

    def tell(self, policy: Policy) -> Measured:
        """Ask the head that tells what texts are, each task by itself."""
        heads: dict[int, np.ndarray] = {}

        def hear(chosen: list[int], batch: Batch, looks: dict[str, Any]) -> None:
            heads.update(zip(chosen, looks["score"].cpu().numpy(), strict=True))

        found, by_task = self.tallies(policy, hear), {}
        for task in self.material.tasks:
            numbers = [n for n, one in enumerate(self.sequences) if one.task == task]
            if not numbers:
                continue
            loss = found["loss" if task.alone else f"loss/{task.name}"].mean()
            own = np.stack([heads[n] for n in numbers])
            by_task[task.name] = figures(task, [self.sequences[n] for n in numbers], own, loss)
        said = self.told(policy, heads)
        if len(self.material.tasks) == 1:
            [(name, alone)] = by_task.items()
            task = next(task for task in self.material.tasks if task.name == name)
            each = rights(task, self.sequences, np.stack([heads[n] for n in range(len(self.sequences))]))
            return Measured(alone, said, right=each)
        return Measured(Scores(found["loss"].mean(), len(self.examples), tasks=by_task), said)

    def told(self, policy: Policy, heads: dict[int, np.ndarray]) -> list[str]:
        """What is said of the first few examples: labels as the heads have it, answers as they are written."""
        shown = self.rendered[:SHOWN]
        asked = [n for n, made in enumerate(shown) if made[0].task and made[0].task.kind == "answers"]
        engine = Engine(policy.model, self.material.renderer.tokenizer, self.settings.batch_size)
        prompts = [self.prompt(self.examples[n]) for n in asked]
        written = dict(zip(asked, engine.write(prompts, self.settings.max_new_tokens) if asked else [], strict=True))
        at = np.cumsum([0, *map(len, self.rendered)]).tolist()  # where the sequences of each example begin
        return [
            written[n] if n in written else said(made[0].task, heads[at[n]])
            for n, made in enumerate(shown)
            if made[0].task
        ]

    def judge(self, policy: Policy) -> Measured:
        """Ask the objective which answers the model holds to be good, and how much better than others."""
        odds: list[float] = []

        def hear(chosen: list[int], batch: Batch, looks: dict[str, Any]) -> None:
            sure = self.objective.odds(batch, **looks)
            odds.extend([] if sure is None else sure.tolist())

        found = self.tallies(policy, hear)
        right = found.pop("accuracy")
        scores = proportion(float(right.sum), float(right.count), found.pop("loss").mean())
        scores = replace(scores, **sure(odds), **raters(self.examples))
        by_pair = dict(zip(self.order[::2], odds, strict=True)) if odds else {}
        each = [1.0 if by_pair[pair] > 0 else 0.5 * (by_pair[pair] == 0) for pair in sorted(by_pair)]
        said = [chosen(by_pair[2 * n]) for n in range(min(SHOWN, len(odds)))]
        if "logp" in self.objective.looks():
            engine = Engine(policy.model, self.material.renderer.tokenizer, self.settings.batch_size)
            asked = [self.prompt(example) for example in self.examples[:SHOWN]]
            said = engine.write(asked, self.settings.max_new_tokens)
        return Measured(
            replace(scores, watched={name: tally.mean() for name, tally in found.items()}), said, right=each
        )

    def worth(self, policy: Policy) -> Measured:
        """Have every prompt answered once, always by the same draws, and see what the answers are worth."""
        assert self.answered is not None
        texts, reward, found = self.answered([self.prompt(example) for example in self.examples], self.examples)
        means = {name: tally.mean() for name, tally in found.items()}
        each = [None if math.isnan(value) else value for value in reward.tolist()]
        return Measured(worth(reward.numpy(), means), texts[:SHOWN], each)

    def loss(self, policy: Policy) -> float:
        """The objective's mean over all examples; of answers of its own, how little they are worth."""
        return self.worth(policy).scores.loss if self.answered else self.tallies(policy)["loss"].mean()

    def by_row(self, policy: Policy) -> tuple[float, list[float], list[float]]:
        """The objective's mean over all examples; what each sequence adds to it and how many tokens it has, where it is
        a mean over these."""
        sums: dict[int, float] = {}
        sizes: dict[int, float] = {}

        def hear(chosen: list[int], batch: Batch, looks: dict[str, Any]) -> None:
            if (logp := looks.get("logp")) is not None:
                weight = torch.ones_like(logp.token) if logp.weight is None else logp.weight
                sums.update(zip(chosen, logp.having(-logp.token * weight).sum().tolist(), strict=True))
                sizes.update(zip(chosen, logp.having(weight).sum().tolist(), strict=True))

        loss = self.tallies(policy, hear)["loss"].mean()
        tokens = sum(sizes.values())
        each = [sums[n] * len(sums) / tokens for n in sorted(sums)] if tokens else []
        whole = bool(each) and math.isclose(sum(each) / len(each), loss, rel_tol=1e-4)
        return (loss, each, [sizes[n] for n in sorted(sizes)]) if whole else (loss, [], [])

    def tallies(self, policy: Policy, hear: Heard | None = None) -> dict[str, Tally]:
        """The objective's sum over all examples, and what it watches; `hear` is told of each batch, in their order."""
        found: dict[str, Tally] = {}
        with reading(policy.model):
            parts = list(self.together())
            known = self.rows.known(self.objective, policy, self.layout, parts, Alone())
            for chosen, given in zip(parts, known, strict=True):
                batch = self.rows.batch(chosen, self.layout).to(policy.device)
                looks = policy.look(batch, self.objective.looks())
                loss = self.objective.loss(batch, **looks, **given)
                if hear:
                    hear(chosen, batch, looks)
                for name, tally in loss.tallies().items():
                    found[name] = found.get(name, Tally(0.0, 0)) + tally
        return found

    def together(self) -> Iterator[list[int]]:
        """The numbers of the sequences of each batch, those of like length together."""
        order, size = self.order, self.settings.batch_size * self.objective.side_by_side
        return (order[at : at + size] for at in range(0, len(order), size))

    @cached_property
    def rows(self) -> Rows:
        """The examples' sequences, and what is known of them before."""
        return Rows(self.sequences)

    @cached_property
    def rendered(self) -> list[list[Tokens]]:
        """Of each example its sequences."""
        render, targets = self.material.renderer.render, self.objective.targets
        return [render(example, targets) for example in self.examples]

    @cached_property
    def sequences(self) -> list[Tokens]:
        return [tokens for made in self.rendered for tokens in made]

    @cached_property
    def order(self) -> list[int]:
        """The sequences' numbers, the shortest example first."""
        size = self.objective.side_by_side
        lengths = np.array([len(tokens.ids) for tokens in self.sequences]).reshape(-1, size)
        return (lengths.sum(1).argsort(kind="stable")[:, None] * size + np.arange(size)).ravel().tolist()


def judged(gold: Sequence[str], said: Sequence[str], loss: float, written: list[str]) -> Measured:
    """What is said of each row held against what is right."""
    right = [one == other for one, other in zip(gold, said, strict=True)]
    return Measured(measure(gold, said, loss), written, right=right)


def sure(odds: Sequence[float]) -> dict[str, Any]:
    """The scores that tell how far a judgement of pairs can be believed."""
    if not odds:
        return {}
    found = calibration(odds)
    return {
        "brier": found.brier,
        "brier_interval": found.brier_interval,
        "calibration_error": found.error,
        "calibration_error_interval": found.error_interval,
        "reliability": found.bins,
    }


def raters(examples: Sequence[Example]) -> dict[str, Any]:
    """The scores that tell how far raters agree on pairs."""
    found = agreed(examples)
    if found is None:
        return {}
    return {
        "one_rater": found.one,
        "one_rater_interval": found.one_interval,
        "half_of_raters": found.halves,
        "half_of_raters_interval": found.halves_interval,
    }


def side_by_side(example: Example) -> str:
    """A pair as a person would be asked to judge it."""
    asked = [message.content for message in example.prompt[-1:]]
    said = [answer.messages[-1].content for answer in example.answers]
    return "\n\n".join([*asked, *(f"{letter}: {text}" for letter, text in zip("AB", said, strict=True))])


def chosen(odds: float) -> str:
    """Which answer of a pair a model holds to be the better, and how sure it is."""
    return f"{'A' if odds > 0 else 'B'} ({1 / (1 + math.exp(-min(abs(odds), 700.0))):.0%})"
