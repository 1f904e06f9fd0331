"""BAdam: a block of the model at a time."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Literal

from ..config.record import Count, Natural, Share
from .base import Learnt, Optim, adams, groups, optimizer


@optimizer("badam")
class BAdam(Optim):
    """BAdam (Luo et al. 2024, arXiv:2404.02827): AdamW on one of the model's blocks at a time, for some steps each; no
    other block has a gradient or a state. Embeddings are a block of their own, and so is what stands behind the last
    one."""

    switch_block_every: Count = 50
    """Steps until the next block has its turn."""
    switch_mode: Literal["random", "ascending", "descending"] = "random"
    """In which order blocks have their turns; random draws a new one each time around."""

    counts = ("taken",)
    whole = "has the gradient of one block only already"

    def make(self, weights, train):
        from ._badam import BAdam

        def kind(one: Learnt) -> dict[str, Any]:
            return {"block": one.block}

        shared = {"taken": 0, "every": self.switch_block_every, "mode": self.switch_mode, "seed": train.seed}
        return BAdam(groups(weights, train, kind), adams(train) | shared)

    @contextmanager
    def learning(self, optimizer: Any):
        with optimizer.one_block():
            yield


@optimizer("badam_ratio")
class BAdamRatio(Optim):
    """BAdam by ratio (arXiv:2404.02827; the second mode of its code): AdamW on a share of each weight's numbers at a
    time, drawn anew after some steps; nothing else of it has a state."""

    update_ratio: Share = 0.05
    """Share of each weight's numbers that learn at a time."""
    switch_every: Count = 50
    """Steps until other numbers have their turn."""
    mask_mode: Literal["adjacent", "scatter"] = "adjacent"
    """Whether they stand side by side, or anywhere: their places are then remembered too."""
    preserve_threshold: Natural = 100
    """Weights of at most so many numbers learn whole."""

    def make(self, weights, train):
        from ._badam import BAdamRatio

        shared = {name: getattr(self, name) for name in ("update_ratio", "mask_mode", "preserve_threshold")}
        return BAdamRatio(
            groups(weights, train), adams(train) | shared | {"every": self.switch_every, "seed": train.seed}
        )
