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

    def step(self, closure=None) -> Any:
        """Take a step; `closure` is there for torch's sake."""
        assert closure is None
        groups = iter(self.param_groups)
        for part in self.parts:  # whoever loads a state or wraps an optimizer gives it other groups
            part.param_groups, part.state = [next(groups) for _ in part.param_groups], self.state
            part.step()
