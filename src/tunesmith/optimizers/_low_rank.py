"""GaLore, Q-GaLore and APOLLO: Adam on gradients of fewer dimensions. Written from the papers, in plain torch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ._stepper import State, Stepper, adam, corrected, count, seed


class GaLore(Stepper):
    """GaLore (Zhao et al. 2024, arXiv:2403.03507).

    A group with a `rank` has matrices whose gradient G [m, n] is projected onto the singular vectors of its shorter
    side, found anew every `update_proj_gap` steps; Adam remembers r numbers for each of the longer side.
    """

    def update(self, gradient, state, group):
        step = count(state)
        if "rank" not in group:
            return corrected(adam(gradient, state, group), group, step)
        tall = gradient.shape[0] >= gradient.shape[1]
        wide = gradient.T if tall else gradient  # [m, n], m <= n
        basis = self.basis(wide, state, group, step)  # [m, r]
        inner = self.inner(basis.T @ wide, state, group, step)
        back = basis @ inner * group["scale"]
        return back.T if tall else back

    def inner(self, low: Tensor, state: State, group: State, step: int) -> Tensor:
        """What becomes of a projected gradient [r, n]."""
        return corrected(adam(low, state, group), group, step)

    def basis(self, wide: Tensor, state: State, group: State, step: int) -> Tensor:
        """[m, r] what gradients are projected onto."""
        if (step - 1) % group["update_proj_gap"] == 0:
            state["basis"] = leading(wide, group["rank"])
        return state["basis"]


def leading(wide: Tensor, rank: int) -> Tensor:
    """[m, r] the first singular vectors on the shorter side."""
    return torch.linalg.svd(wide, full_matrices=False).U[:, :rank].contiguous()


class GaLoreAdafactor(GaLore):
    """GaLore, with Adafactor (arXiv:1804.04235) in the place of Adam."""

    def inner(self, low, state, group, step):
        if "row" not in state:
            state["row"], state["column"] = low.new_zeros(low.shape[0]), low.new_zeros(low.shape[1])
        old = 1 - step ** group["decay_rate"]
        squares = low.square() + 1e-30
        row = state["row"].mul_(old).add_(squares.mean(1), alpha=1 - old)
        column = state["column"].mul_(old).add_(squares.mean(0), alpha=1 - old)
        move = low * (row / row.mean()).rsqrt()[:, None] * column.rsqrt()
        return move / (move.norm() / math.sqrt(move.numel())).clamp(min=1.0)

    def update(self, gradient, state, group):
        if "rank" in group:
            return super().update(gradient, state, group)
        step = count(state)
        if gradient.ndim == 2:
            return self.inner(gradient, state, group, step)
        old = 1 - step ** group["decay_rate"]
        if "squares" not in state:
            state["squares"] = torch.zeros_like(gradient)
        squares = state["squares"].mul_(old).add_(gradient.square() + 1e-30, alpha=1 - old)
        move = gradient * squares.rsqrt()
        return move / (move.norm() / math.sqrt(move.numel())).clamp(min=1.0)


class QGaLore(GaLore):
    """Q-GaLore (Zhang et al. 2024, arXiv:2407.08296): the basis is kept in 4 bits a number, and found anew less and
    less often where it hardly changes. Weights and Adam's means stay as they are."""

    def basis(self, wide, state, group, step):
        known = "packed" in state
        if known and step < int(state["due"]):
            return unpack(state["packed"], state["scales"], wide.shape[0], group["rank"])
        found = leading(wide, group["rank"])
        gap = float(state["gap"]) if known else float(group["update_proj_gap"])
        if known:
            before = unpack(state["packed"], state["scales"], wide.shape[0], group["rank"])
            alike = float(torch.nn.functional.cosine_similarity(before, found, dim=0).abs().mean())
            lately = torch.cat([state["alike"], torch.tensor([alike])])[-group["queue_size"] :]
            full = len(lately) == group["queue_size"] and float(lately.mean()) >= group["cos_threshold"]
            gap *= group["gamma_proj"] if full else 1.0
            state["alike"] = lately
        else:
            state["alike"] = torch.zeros(0)
        state["gap"], state["due"] = torch.tensor(gap), torch.tensor(step + int(gap))
        state["packed"], state["scales"] = pack(found)
        return unpack(state["packed"], state["scales"], *found.shape)


BLOCK = 256
"""Numbers that share a scale."""


def pack(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix in 4 bits a number: two in a byte, and the scale of every block."""
    flat = torch.nn.functional.pad(matrix.flatten(), (0, -matrix.numel() % BLOCK)).view(-1, BLOCK)
    scales = flat.abs().amax(1, keepdim=True).clamp(min=1e-12) / 7
    levels = ((flat / scales).round() + 8).to(torch.uint8).flatten()
    return levels[::2] * 16 + levels[1::2], scales.squeeze(1)


def unpack(packed: Tensor, scales: Tensor, rows: int, columns: int) -> Tensor:
    levels = torch.stack([packed // 16, packed % 16], 1).view(-1, BLOCK).float() - 8
    return (levels * scales[:, None]).flatten()[: rows * columns].view(rows, columns)


class Apollo(Stepper):
    """APOLLO (Zhu et al. 2024, arXiv:2412.05270).

    The gradient keeps its direction; Adam, on a random projection of it, says by how much each of its channels (or all
    of it, in APOLLO-Mini) is to be scaled. The projection is drawn from the seed and the step, never kept.
    """

    def update(self, gradient, state, group):
        step = count(state)
        if "rank" not in group:
            return corrected(adam(gradient, state, group), group, step)
        tall = gradient.shape[0] >= gradient.shape[1]
        wide = gradient.T if tall else gradient
        low = self.projection(wide, state, group, step) @ wide  # [r, n]
        direction = adam(low, state, group)
        over = {"dim": 0} if group["scale_type"] == "channel" else {}
        by = torch.linalg.vector_norm(direction, **over) / (torch.linalg.vector_norm(low, **over) + 1e-8)
        scaled = wide * by * math.sqrt(group["scale"])
        scaled = corrected(limited(scaled, state), group, step)
        return scaled.T if tall else scaled

    def change(self, weight, group):
        state = self.state[weight]
        if "seed" not in state:  # other numbers for every weight
            state["seed"] = torch.tensor(seed(weight, group))
        super().change(weight, group)

    def projection(self, wide: Tensor, state: State, group: State, step: int) -> Tensor:
        """[r, m] normal numbers, others every `update_proj_gap` steps."""
        draw = torch.Generator().manual_seed(int(state["seed"]) + (step - 1) // group["update_proj_gap"])
        drawn = torch.randn(group["rank"], wide.shape[0], generator=draw) / math.sqrt(group["rank"])
        return drawn.to(wide)


def limited(move: Tensor, state: State) -> Tensor:
    """A move whose length grows by at most a hundredth a step (Fira, arXiv:2410.01623)."""
    length = torch.linalg.vector_norm(move)
    if "length" in state:
        by = (length / (state["length"] + 1e-8)).clamp(min=1.01) / 1.01
        move, length = move / by, length / by
    state["length"] = length
    return move
