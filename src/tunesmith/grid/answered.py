"""The first answers of an objective that learns from the model's own: overheard, and looked at a second way."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from ..data.example import Example
from ..data.rendering.tokens import Tokens
from ..objectives._online import Gaining, Online, Rolled
from ..objectives.base import LogProbs, Tally
from ..rollout.buffer import Scorer
from ..rollout.sample import Drawn
from ..run import Run
from .plain import Given, as_asked, logp, teacher_of, value


@dataclass
class Overheard:
    """Rewards at work, and what they were shown last and made of it."""

    scorer: Scorer
    drawn: Sequence[Drawn] = ()
    reward: Tensor = field(default_factory=lambda: torch.empty(0))

    def __call__(
        self, examples: Sequence[Example], texts: Sequence[str], drawn: Sequence[Drawn]
    ) -> tuple[Tensor, dict[str, Tally]]:
        self.drawn = drawn
        self.reward, watched = self.scorer(examples, texts, drawn)
        return self.reward, watched

    def close(self) -> None:
        self.scorer.close()

    @property
    def sampled(self) -> Tensor:
        """[M] the log-probability that each token was drawn with."""
        return torch.tensor([one for row in self.drawn for one in row.logp])


def judged_before(plain: Any, run: Run, sequences: Sequence[Tokens], heard: Overheard) -> tuple[Given, float]:
    """What the objective knows of the answers before it learns from them, by plain forwards; and by how many nats a
    token, as a mean, these are from what the answers were drawn with."""
    objective = cast(Online, run.objective)
    known = {"sampled": heard.sampled}
    off = run.method.detachable and hasattr(plain, "disable_adapter")
    with as_asked(plain):
        known["old"] = logp(plain, sequences).token
        if "value" in objective.before():
            known["value"] = value(plain, sequences)
        if "reference" in objective.before():
            with plain.disable_adapter() if off else nullcontext():
                known["reference"] = logp(plain, sequences).token
    lengths = torch.tensor([len(one.ids) for one in heard.drawn])
    ended = torch.tensor([one.ended for one in heard.drawn])
    usual = getattr(objective, "kl_coef", 0.0)
    rolled = Rolled(heard.reward, lengths, objective.num_generations, ended, dict(known), usual)
    made: dict[str, Any] = known | objective.advantages(rolled)
    if isinstance(objective, Gaining):
        trust = (known["old"] - known["sampled"]).exp().clamp(max=objective.importance_cap)
        made["advantage"] = made["advantage"] * trust
    if "reference" in made:
        made["reference"] = LogProbs(made["reference"], rolled.spread(rolled.numbers), len(sequences))
    del made["sampled"]
    made.pop("value", None)  # it is looked at anew
    away = float((known["old"] - known["sampled"]).abs().mean())
    return Given(sequences, made, teacher=teacher_of(run)), away
