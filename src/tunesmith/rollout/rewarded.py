"""Answers as rewards see them, and what they come to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.example import Example
from ..objectives.base import Tally
from .alarms import Alarms
from .sample import Drawn
from .score import Scoring
from .turns import said


@dataclass
class Rewarded:
    """Scores answers, and counts those that could not be scored."""

    scoring: Scoring
    alarms: Alarms | None = None
    """Hears why answers could not be scored."""

    def close(self) -> None:
        """Let go of what rewards hold: processes, models."""
        self.scoring.__exit__()

    def __call__(
        self, examples: Sequence[Example], texts: Sequence[str], drawn: Sequence[Drawn]
    ) -> tuple[Tensor, dict[str, Tally]]:
        """[N] float32 what each answer is worth, not a number where nobody can say; and what is watched."""
        told = zip(examples, texts, drawn, strict=True)
        answers = [said(example, text, len(one.ids), one.ended) for example, text, one in told]
        self.scoring.ever |= bool(self.alarms and self.alarms.first)  # a run that is resumed has had rollouts
        scored = self.scoring.score(answers)
        if self.alarms:
            self.alarms.reasons.update(
                {f"{name}: {why}": count for name, found in scored.reasons.items() for why, count in found.items()}
            )
        watched = {"rewards/failed": Tally(float(scored.failed), 1)}
        for name, values in scored.each.items():
            there = [value for value in values if value is not None]
            watched[f"rewards/{name}"] = Tally(sum(there), len(there))
        return torch.tensor([torch.nan if value is None else value for value in scored.total]), watched
