"""Two optimizers as one, each over weights of its own."""

from __future__ import annotations

from typing import Any

from torch.optim import AdamW, Muon, Optimizer


def muon(groups: list[dict[str, Any]], **options: Any) -> Optimizer:
    """torch's Muon."""
    return Muon(groups, **options)


class Together(Optimizer):
    """Optimizers that take their steps together, and AdamW over `others`. Groups and states are those of its parts."""

    def __init__(self, parts: list[Optimizer], others: list[dict[str, Any]], adam: dict[str, Any]) -> None:
        self.parts = [*parts, *([AdamW(others, **adam)] if others else [])]
        super().__init__([group for part in self.parts for group in part.param_groups], {"lr": adam["lr"]})
        made = iter(self.param_groups)
        for part in self.parts:
            part.param_groups = [next(made) for _ in part.param_groups]  # the very same, whoever sets their rate
            part.state = self.state

    def step(self, closure=None) -> Any:
        """Take a step; `closure` is there for torch's sake."""
        assert closure is None
        for part in self.parts:
            part.step()
