"""The answers that are being learnt from: given, rewarded, and looked at by the policy before it learns from them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.modules.dropout import _DropoutNd

from ..data.batch import Batch, Layout
from ..data.example import Example
from ..data.rendering.tokens import Tokens
from ..model.engine import Engine
from ..model.policy import Policy
from ..model.rows import Column, Rows
from ..objectives._online import Gaining, Online, Rolled
from ..objectives.base import Tally
from ..samplers.base import Drawer
from .alarms import Alarms
from .beginning import Beginning
from .sample import Drawn, sample

AT_ONCE = 1024
"""Tokens that the policy looks at together."""


class Scorer(Protocol):
    """What rewards make of answers: [N] float32, and what is watched of them."""

    def __call__(
        self, examples: Sequence[Example], texts: Sequence[str], drawn: Sequence[Drawn]
    ) -> tuple[Tensor, dict[str, Tally]]: ...
    def close(self) -> None: ...


@dataclass
class Buffer:
    """Answers to the prompts of one rollout after another, and what the steps that learn from them see."""

    policy: Policy
    objective: Online
    engine: Engine
    layout: Layout
    prompts: Sequence[Tokens]
    examples: Sequence[Example]
    """Of each prompt what rewards look at."""
    scorer: Scorer
    seed: int
    say: Callable[[str], None]
    beginning: Beginning | None = None
    """The reference, and what held-out answers are held against; none where it is not to be had any more."""
    drawer: Drawer | None = None
    """Who draws the answers, where that is not the model that learns."""
    number: int = -1
    """Which rollout the answers are of."""
    rows: Rows = field(default_factory=lambda: Rows([]))
    kl_coef: float = 0.0
    seeing: Callable[[], AbstractContextManager[Any]] = nullcontext
    """Within what the policy is looked at: in the precision in which it learns, or else what it says would differ."""
    alarms: Alarms = field(init=False)

    def __post_init__(self) -> None:
        self.alarms = Alarms(self.say)
        self.kl_coef = getattr(self.objective, "kl_coef", 0.0)

    def batches(self, step: int, parts: int) -> list[list[int]]:
        """The groups of answers that a step learns from, by number, in so many batches."""
        objective = self.objective
        groups = list(range(len(self.rows.sequences) // objective.num_generations))
        time, part = divmod(step % objective.repeats, objective.num_mini_batches)
        random.Random(f"{self.seed} {self.number} {time}").shuffle(groups)
        mine = groups[part :: objective.num_mini_batches]
        return [mine[at::parts] for at in range(parts) if mine[at::parts]]

    def fill(self, number: int, chosen: Sequence[int]) -> dict[str, Tally]:
        """Have these prompts answered; what is watched of the answers."""
        objective, size = self.objective, self.objective.num_generations
        drawn = self.draw([self.prompts[n].ids for n in chosen], self.seed * 1_000_003 + number, size)
        each = [n for n in chosen for _ in range(size)]
        texts = [self.engine.tokenizer.decode(one.ids, skip_special_tokens=True) for one in drawn]
        reward, watched = self.scorer([self.examples[n] for n in each], texts, drawn)
        self.rows = Rows([joined(self.prompts[n], one) for n, one in zip(each, drawn, strict=True)])
        lengths, ended = torch.tensor([len(one.ids) for one in drawn]), torch.tensor([one.ended for one in drawn])
        rolled = Rolled(expected(reward, size), lengths, size, ended, kl_coef=self.kl_coef)
        rolled.known["sampled"] = torch.tensor([one for row in drawn for one in row.logp])
        rolled.known |= {} if self.at_once else self.looked_at()
        columns = rolled.known | unsaid(objective.advantages(rolled), rolled.spread(reward.isnan()))
        if isinstance(objective, Gaining) and not self.at_once:
            columns["advantage"] = columns["advantage"] * trust(objective, rolled.known["old"], rolled.known["sampled"])
        ends = [0, *accumulate(len(one.ids) for one in drawn)]
        used = set(objective.looks()) - {"value"}  # which is looked at anew
        used |= {"sampled"} if self.at_once else set()
        self.rows.columns = {name: Column(values.float(), ends) for name, values in columns.items() if name in used}
        self.number = number
        watched |= self.watch(rolled, drawn, texts, watched)
        if self.objective.rewarded:
            watched["reward"] = Tally(float(reward.nansum()), int((~reward.isnan()).sum()))
        self.adapt(watched, len(drawn))
        return watched

    @cached_property
    def at_once(self) -> bool:
        """Whether answers are learnt from once, by the policy as it stood when it gave them: what it says of them
        before is then what it says as it learns, and it is asked but once."""
        return self.objective.at_once and not at_random(self.policy)

    def trusted(self, batch: Batch, looks: dict[str, Any]) -> dict[str, Tally]:
        """Correct the advantages of answers that are learnt from at once, and watch how far the sampler was away."""
        sampled = batch.known.get("sampled")
        if sampled is None or not isinstance(self.objective, Gaining):
            return {}
        looks["advantage"] = looks["advantage"] * trust(self.objective, looks["old"], sampled)
        apart = (looks["old"] - sampled).abs()
        found = Tally(float(apart.sum()), len(apart))
        self.alarms.apart(self.number, found.mean())
        return {"sampler_mismatch": found}

    def draw(self, prompts: Sequence[list[int]], seed: int, size: int = 1) -> list[Drawn]:
        """So many answers to each prompt, by whom the objective names."""
        if self.drawer:
            return self.drawer(prompts, self.objective, seed, size)
        return sample(self.engine, prompts, self.objective, seed, size, self.objective.sampler.half)

    def tried(
        self, prompts: Sequence[list[int]], examples: Sequence[Example]
    ) -> tuple[list[str], Tensor, dict[str, Tally]]:
        """One answer to each prompt, by the same draws each time; what it is worth, and what is watched of it."""
        drawn = self.draw(prompts, 0)
        texts = [self.engine.tokenizer.decode(one.ids, skip_special_tokens=True) for one in drawn]
        reward, watched = self.scorer(examples, texts, drawn)
        watched |= how_said(drawn, texts)
        rows = Rows([joined(Tokens(ids, [False] * len(ids)), one) for ids, one in zip(prompts, drawn, strict=True)])
        if not self.objective.rewarded:
            reward = -means(self.asked(["divergence"], rows)["divergence"], [len(one.ids) for one in drawn])
        if self.beginning:
            now = self.asked(["logp"], rows)["logp"]
            with self.beginning.there():
                watched["kl"] = Tally(float((now - self.asked(["logp"], rows)["logp"]).sum()), len(drawn))
        return texts, reward, watched

    def looked_at(self) -> dict[str, Tensor]:
        """[M] each, what the objective wants to know of the policy before it learns from its answers."""
        before = self.objective.before()
        names = ["logp", *({"value"} & before)]
        found = {"old" if name == "logp" else name: values for name, values in self.asked(names, self.rows).items()}
        if self.beginning and "reference" in before:
            with self.beginning.there():
                found["reference"] = self.asked(["logp"], self.rows)["logp"]
        return found

    def asked(self, names: Sequence[str], rows: Rows) -> dict[str, Tensor]:
        """[M] each, looks at all answers, a few at once."""
        made: dict[str, list[Tensor]] = {name: [] for name in names}
        for group in together(rows, self.objective.num_generations) if names else ():
            batch = rows.batch(group, self.layout).to(self.policy.device)
            with self.policy.trying(), self.seeing():
                for name, look in self.policy.look(batch, names).items():
                    made[name].append((look if isinstance(look, Tensor) else look.token).float().cpu())
        return {name: torch.cat(values) for name, values in made.items()}

    def watch(
        self, rolled: Rolled, drawn: Sequence[Drawn], texts: Sequence[str], watched: dict[str, Tally]
    ) -> dict[str, Tally]:
        """What tells whether a policy goes astray: length, repetition, distance, groups that say nothing."""
        groups = rolled.reward.view(-1, rolled.group)
        known, count = rolled.known, len(drawn)
        found = how_said(drawn, texts)
        if self.objective.rewarded:
            found["reward"] = Tally(float(rolled.reward.sum()), count)
        if self.objective.rewarded and rolled.group > 1:
            alike = (groups.amax(1) == groups.amin(1)).sum()
            found["reward_std"] = Tally(float(groups.std(1).sum()), len(groups))
            found["groups_alike"] = Tally(float(alike), len(groups))
        if "old" in known:
            apart = (known["old"] - known["sampled"]).abs()
            found["sampler_mismatch"] = Tally(float(apart.sum()), len(apart))
            self.alarms.apart(self.number, found["sampler_mismatch"].mean())
        if "reference" in known:
            found["kl"] = Tally(float(rolled.total(known["old"] - known["reference"]).sum()), count)
        self.alarms.look(self.number, watched | found)
        return found

    def adapt(self, watched: dict[str, Tally], count: int) -> None:
        """Bring the distance from the reference to what is aimed at, where it is."""
        target = getattr(self.objective, "kl_target", None)
        if target and "kl" in watched:
            off = max(-0.2, min(0.2, watched["kl"].mean() / target - 1))
            self.kl_coef *= 1 + off * count / getattr(self.objective, "kl_horizon", count)
            watched["kl_coef"] = Tally(self.kl_coef, 1)

    def state(self) -> dict[str, Tensor]:
        """The answers, for a run that is resumed while it learns from them."""
        rows = self.rows.sequences
        facts = {
            "number": torch.tensor([self.number]),
            "kl_coef": torch.tensor([self.kl_coef], dtype=torch.float64),
            "ids": torch.tensor([one for row in rows for one in row.ids]),
            "sizes": torch.tensor([[len(row.ids), sum(row.learn)] for row in rows]).reshape(-1, 2),
            "told": torch.tensor(list(json.dumps(self.alarms.as_json()).encode()), dtype=torch.uint8),
        }
        began = self.beginning.weights if self.beginning else {}
        return (
            facts
            | {f"known.{name}": column.values for name, column in self.rows.columns.items()}
            | {f"began.{name}": weight for name, weight in began.items()}
        )

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on with what `state` said."""
        self.number, self.kl_coef = int(state["number"]), float(state["kl_coef"])
        self.alarms.restore(json.loads(bytes(state["told"].tolist())))
        sizes, rows, at = state["sizes"].tolist(), [], 0
        for size, learnt in sizes:
            learn = [False] * (size - learnt) + [True] * learnt
            rows.append(Tokens(state["ids"][at : at + size].tolist(), learn))
            at += size
        ends = [0, *accumulate(learnt for _, learnt in sizes)]
        columns = {name.removeprefix("known."): one for name, one in state.items() if name.startswith("known.")}
        self.rows = Rows(rows, columns={name: Column(values, ends) for name, values in columns.items()})
        if self.beginning:
            for name, weight in self.beginning.weights.items():
                weight.copy_(state.get(f"began.{name}", weight))


def at_random(policy: Policy) -> bool:
    """Whether a policy that learns never says the same twice: it leaves states out, or is stirred."""
    config = vars(policy.bare.config.get_text_config())
    rates = [rate for name, rate in config.items() if "drop" in name and isinstance(rate, float)]
    layers = [one.p for one in policy.model.modules() if isinstance(one, _DropoutNd)]
    return any([policy.noise, *rates, *layers])


def trust(objective: Gaining, trainer: Tensor, sampler: Tensor) -> Tensor:
    """[M] how much each token counts, as if the trainer had drawn it and not the sampler."""
    return (trainer - sampler).exp().clamp(max=objective.importance_cap)


def together(rows: Rows, size: int) -> Iterator[list[int]]:
    """The numbers of answers that are looked at in one pass, those to a prompt side by side."""
    group: list[int] = []
    for first in range(0, len(rows.sequences), size):
        group += range(first, min(first + size, len(rows.sequences)))
        if sum(len(rows.sequences[n].ids) for n in group) >= AT_ONCE:
            yield group
            group = []
    if group:
        yield group


def means(values: Tensor, sizes: Sequence[int]) -> Tensor:
    """[M] -> [N] the mean over each answer's tokens; every answer has one at least."""
    return torch.stack([one.mean() for one in values.split(list(sizes))])


def how_said(drawn: Sequence[Drawn], texts: Sequence[str]) -> dict[str, Tally]:
    """How answers look, whatever they are worth."""
    count = len(drawn)
    return {
        "completion_length": Tally(float(sum(len(one.ids) for one in drawn)), count),
        "ended": Tally(float(sum(one.ended for one in drawn)), count),
        "empty": Tally(float(sum(not text.strip() for text in texts)), count),
        "repetition": Tally(sum(repetition(one.ids) for one in drawn), count),
    }


def expected(reward: Tensor, group: int) -> Tensor:
    """[N] rewards; one that nobody could say is the mean of its group, or of all, so that the others' are held against
    what they would be without it."""
    groups = reward.view(-1, group)
    groups = groups.where(~groups.isnan(), groups.nanmean(1, keepdim=True))
    return groups.where(~groups.isnan(), groups.nanmean()).flatten().nan_to_num()


def unsaid(columns: dict[str, Tensor], silent: Tensor) -> dict[str, Tensor]:
    """What is learnt of tokens, [M] each: of those whose answer nobody could score neither whether they were good nor,
    by a critic, what came of them."""
    made = dict(columns)
    if "advantage" in made:
        made["advantage"] = made["advantage"].masked_fill(silent, 0)
    if "came" in made:
        expected_then = made["came"][:, :1]
        made["came"] = made["came"].where(~silent.unsqueeze(-1), expected_then)
    return made


def joined(prompt: Tokens, said: Drawn) -> Tokens:
    """A prompt and what was said to it, which is learnt."""
    learn = [False] * len(prompt.ids) + [True] * len(said.ids)
    return Tokens(prompt.ids + said.ids, learn, origin=prompt.origin)


def repetition(ids: Sequence[int], size: int = 4) -> float:
    """The share of stretches of so many tokens that were there before."""
    stretches: list[Any] = [tuple(ids[at : at + size]) for at in range(len(ids) - size + 1)]
    return 1 - len(set(stretches)) / len(stretches) if stretches else 0.0
