"""BAdam, written from the paper (arXiv:2404.02827), in plain torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ._stepper import State, Stepper, adam, corrected, count


class BAdam(Stepper):
    """AdamW on the groups of one `block`; its means are forgotten when the next one has its turn."""

    @property
    def active(self) -> int:
        """The block whose turn it is: told by the steps taken alone."""
        group, blocks = self.param_groups[0], sorted({group["block"] for group in self.param_groups})
        turn = group["taken"] // group["every"]
        around, at = divmod(turn, len(blocks))
        if group["mode"] == "random":
            draw = torch.Generator().manual_seed(group["seed"] + around)
            return blocks[int(torch.randperm(len(blocks), generator=draw)[at])]
        return blocks[at if group["mode"] == "ascending" else -1 - at]

    @contextmanager
    def one_block(self) -> Iterator[None]:
        """Within it, no gradient is computed but that of the block whose turn it is."""
        waiting = [weight for group in self.param_groups if group["block"] != self.active for weight in group["params"]]
        for weight in waiting:
            weight.requires_grad_(False)
            weight.grad = None
            self.state.pop(weight, None)
        try:
            yield
        finally:
            for weight in waiting:
                weight.requires_grad_(True)

    def step(self, closure=None):
        """Take a step of the block whose turn it is."""
        super().step(closure)
        for group in self.param_groups:
            group["taken"] += 1

    def change(self, weight, group: State) -> None:
        if group["block"] == self.active:
            super().change(weight, group)

    def update(self, gradient, state, group):
        step = count(state)
        return corrected(adam(gradient, state, group), group, step)
