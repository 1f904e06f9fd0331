"""Where numbers stop being numbers: the first module of the model that does it, and the rows that it does it on."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .loop import Loop, Step

SHOWN = 3


def suspects(loop: Loop, number: int) -> str:
    """What is wrong with a step, by taking its forward pass again and looking at every module."""
    for name, weight in loop.policy.model.named_parameters():
        if not bool(weight.isfinite().all()):
            return f"the weights of {plain(name)} hold what is no number"
    for chosen, known in loop.known(number):
        found: list[str] = []
        hooks = [
            module.register_forward_hook(watch(name, found))
            for name, module in loop.policy.model.named_modules()
            if not list(module.children())
        ]
        try:
            with torch.no_grad():
                _, loss = loop.judge(chosen, known)
        finally:
            for hook in hooks:
                hook.remove()
        if found or not bool(torch.as_tensor(loss.sum).isfinite()):
            where = f"{plain(found[0])} is the first module that" if found else "the loss itself"
            return f"{where} makes what is no number, of the rows {origins(loop, chosen)}"
    for name, weight in loop.weights.items():
        if weight.grad is not None and not bool(weight.grad.isfinite().all()):
            return f"the forward pass is sound; the gradient of {plain(name)} is the first that is no number"
    return "taken again, the step is sound"


def diverged(step: Step, early: bool) -> str:
    """What became of a step that is no number. `early` is whether weights are changed before all of it is known."""
    taken = "half taken" if early and math.isfinite(step.loss) else "not taken"  # its gradient was not known beforehand
    return (
        f"step {step.number}: the loss is {step.loss:.4g} and the gradient's length {step.grad_norm:.4g}; the step was"
        f" {taken}: {step.skipped}. Lower train.learning_rate (it was {step.learning_rate:.3g}), lengthen"
        " train.warmup_steps, look at these rows with `tunesmith data preview`, or set train.on_nan=skip"
    )


def watch(name: str, found: list[str]):
    def look(module, inputs, output) -> None:
        first = output[0] if isinstance(output, tuple) and output else output
        if isinstance(first, Tensor) and first.is_floating_point() and not bool(first.isfinite().all()):
            found.append(name)

    return look


def rows(loop: Loop, number: int) -> str:
    """Where the examples of a step were read."""
    return origins(loop, [n for batch in loop.batches(number) for n in loop.sequences_of(batch)])


def origins(loop: Loop, chosen: list[int]) -> str:
    """Where some examples were read."""
    found = list(dict.fromkeys(loop.rows.sequences[n].origin or f"number {n}" for n in chosen))
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return ", ".join(found[:SHOWN]) + more


@dataclass
class Spikes:
    """Tells a loss that stands out from the ones before it."""

    losses: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    usual: float = float("nan")
    """The median of the last losses."""

    def seen(self, loss: float) -> bool:
        """Whether a step's loss is above the last ones' median by FAR times what they usually differ from it."""
        spike = False
        if len(self.losses) == WINDOW:
            self.usual = median(self.losses)
            spread = median(abs(one - self.usual) for one in self.losses)
            spike = loss - self.usual > FAR * max(spread, 0.01 * abs(self.usual))
        self.losses.append(loss)
        return spike


WINDOW = 30
FAR = 10


def plain(name: str) -> str:
    """A module's name as the model's makers know it."""
    return name.removeprefix("base_model.model.").replace(".base_layer", "")
