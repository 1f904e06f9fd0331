"""Answers as rewards see them, and what they come to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..data.example import Example
from ..objectives.base import Tally
from .sample import Drawn
from .score import Scoring
from .turns import said


@dataclass
class Rewarded:
    """Scores answers, and counts those that could not be scored."""

    scoring: Scoring
    reasons: Counter[str] = field(default_factory=Counter)
    """Why answers could not be scored, and how many so far."""

    def close(self) -> None:
        """Let go of what rewards hold: processes, models."""
        self.scoring.__exit__()

    def __call__(
        self, examples: Sequence[Example], texts: Sequence[str], drawn: Sequence[Drawn]
    ) -> tuple[Tensor, dict[str, Tally]]:
        """[N] float32 what each answer is worth, not a number where nobody can say; and what is watched."""
        told = zip(examples, texts, drawn, strict=True)
        answers = [said(example, text, len(one.ids), one.ended) for example, text, one in told]
        scored = self.scoring.score(answers)
        for name, reasons in scored.reasons.items():
            for why, count in reasons.items():
                self.reasons[f"{name}: {why}"] += count
        watched = {"rewards/failed": Tally(float(scored.failed), 1)}
        for name, values in scored.each.items():
            there = [value for value in values if value is not None]
            watched[f"rewards/{name}"] = Tally(sum(there), len(there))
        return torch.tensor([torch.nan if value is None else value for value in scored.total]), watched
