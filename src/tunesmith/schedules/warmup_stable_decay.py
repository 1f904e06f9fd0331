"""A learning rate that stays for most of the run."""

import math
from typing import Literal

from ..config.record import Fraction, Positive
from ..errors import RecipeError
from .base import Schedule, schedule


@schedule("warmup_stable_decay")
class WarmupStableDecay(Schedule):
    """Warmup, a plateau, and a decay at the end (WSD; Hu et al. 2024, arXiv:2404.06395)."""

    num_decay_steps: Positive = 0.1
    """Steps of the decay at the end; a value below 1 is a share of all steps."""
    warmup_type: Literal["linear", "cosine", "1-sqrt"] = "linear"
    """How it rises."""
    decay_type: Literal["cosine", "linear", "1-sqrt"] = "cosine"
    """How it falls."""
    min_lr_ratio: Fraction = 0.0
    """Where it begins and ends, as a share of the peak."""
    num_cycles: Positive = 0.5
    """Waves of a cosine in the decay; a half only falls."""

    def refuse(self, train):
        if self.decay_type != "cosine" and self.num_cycles != 0.5:
            raise RecipeError("train.lr_scheduler_type.num_cycles: is for decay_type=cosine; leave it out")

    def options(self, warmup, total):
        decay = self.num_decay_steps
        steps = math.ceil(decay * total) if decay < 1 else int(decay)
        if warmup + steps > total:
            raise RecipeError(
                f"train.lr_scheduler_type.num_decay_steps: {steps} and {warmup} of warmup are more than the run's"
                f" {total} steps; make one of them smaller"
            )
        return super().options(warmup, total) | {"num_decay_steps": steps}
