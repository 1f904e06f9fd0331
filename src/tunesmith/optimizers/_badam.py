"""BAdam, written from the paper (arXiv:2404.02827), in plain torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ._stepper import State, Stepper, adam, corrected, count, seed


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


class BAdamRatio(Stepper):
    """AdamW on a share of each weight's numbers, others every `every` steps; means are forgotten then."""

    def change(self, weight, group):
        state = self.state[weight]
        turn, at = divmod(count(state) - 1, group["every"])
        if at == 0:
            state.pop("exp_avg", None)
            state.pop("exp_avg_sq", None)
            state["places"] = self.places(weight, group, turn)
        gradient = weight.grad
        assert gradient is not None
        gradient = (gradient.to_dense() if gradient.is_sparse else gradient).flatten()
        chosen: slice | Tensor = state["places"].long().to(weight.device)
        if group["mask_mode"] == "adjacent":
            first, last = map(int, state["places"])
            chosen = slice(first, last)
        move = corrected(adam(gradient[chosen].float(), state, group), group, at + 1)
        flat = weight.data.view(-1)
        kept = flat[chosen] * (1 - group["lr"] * group["weight_decay"])
        flat[chosen] = kept - group["lr"] * move.to(weight.dtype)

    def places(self, weight: Tensor, group: State, turn: int) -> Tensor:
        """Where the chosen numbers are: the first and the one behind the last, or each of them."""
        whole = weight.numel() <= group["preserve_threshold"]
        size = weight.numel() if whole else max(1, int(group["update_ratio"] * weight.numel()))
        draw = torch.Generator().manual_seed(seed(weight, group) + turn)
        if group["mask_mode"] == "adjacent":
            first = int(torch.randint(weight.numel() - size + 1, (), generator=draw))
            return torch.tensor([first, first + size])
        return torch.randperm(weight.numel(), generator=draw)[:size].int()
