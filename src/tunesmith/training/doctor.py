"""Does this model, with these rows, come to the same whatever way it is computed? Tried, not believed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import Parameter

from ..data.batch import pack, pad, share
from ..model.compiled import untranslated
from ..model.kept import keep
from ..model.policy import Policy
from ..run import Train
from . import checkpoint
from .loop import Loop


class Finding(NamedTuple):
    """One equivalence: how far two ways of computing the same thing are apart."""

    what: str
    difference: float
    """As a share of the larger one's length."""
    allowed: float

    @property
    def holds(self) -> bool:
        return self.difference <= self.allowed


def examine(loop: Loop) -> Iterator[Finding]:
    """Try every equivalence on a loop's first step, and leave its weights as they were.

    The measure is a plain forward of the model, one row at a time, with all its logits, and autograd's own backward.
    """
    rows = len(loop.sequences) // loop.objective.rendered
    slack = 1e-5 if next(loop.policy.trunk.parameters()).dtype == torch.float32 else 3e-2
    start = {name: weight.detach().clone() for name, weight in loop.weights.items()}
    usual = replace(loop.train, per_device_train_batch_size=rows, gradient_accumulation_steps=1, max_steps=2)
    singly = replace(usual, per_device_train_batch_size=1, gradient_accumulation_steps=rows)
    stir(loop.weights)
    with exactly_alike(loop.policy):
        with untranslated():
            plain = gradient(plainly(loop, singly))
        found = {
            f"{rows} rows at once, as this run lays them out": gradient(again(loop, usual)),
            "the same, one row at a time": gradient(again(loop, singly)),
            "the same, padded": gradient(again(loop, usual, layout=pad)),
            **({"the same, nothing shared": gradient(again(loop, usual, layout=pack))} if loop.layout is share else {}),
        }
        with slowly(loop.policy) as any_lora:
            if any_lora:
                found["the same, through PEFT's own layers"] = gradient(again(loop, usual))
        with TemporaryDirectory() as folder:
            kept = keep(loop.policy, loop.sequences, 2, Path(folder), lambda _: None)
            if kept and loop.layout is not pad:
                found["the same, from kept states"] = gradient(again(loop, usual, kept=kept))
    for what, (loss, slopes) in found.items():
        yield Finding(f"{what}: loss", apart(loss, plain[0]), slack)
        yield Finding(f"{what}: gradient", apart(slopes, plain[1]), slack)
    with torch.no_grad():
        for name, weight in loop.weights.items():
            weight.copy_(start[name])
    yield from repeats(loop, usual, start)


def repeats(loop: Loop, train: Train, start: dict[str, Tensor]) -> Iterator[Finding]:
    """Two steps, taken twice, and with a stop in between, to the bit."""

    def afresh() -> Loop:
        torch.manual_seed(train.seed)
        with torch.no_grad():
            for name, weight in loop.weights.items():
                weight.copy_(start[name])
                weight.grad = None
        return again(loop, train)

    def flat() -> Tensor:
        return torch.cat([weight.detach().flatten().cpu() for weight in loop.weights.values()])

    try:
        list(afresh().fit())
        once = flat()
        list(afresh().fit())
        yield Finding("two runs with one seed: weights after 2 steps", apart(flat(), once), 0.0)
        with TemporaryDirectory() as folder:
            first = afresh()
            next(first.fit())
            place = checkpoint.write(Path(folder), 1, checkpoint.state(first), {}, None)
            resumed = afresh()
            checkpoint.load(place, resumed, {})
            list(resumed.fit(1))
        yield Finding("stopped after 1 step, saved and resumed: weights after 2", apart(flat(), once), 0.0)
    finally:
        with torch.no_grad():
            for name, weight in loop.weights.items():
                weight.copy_(start[name])
                weight.grad = None


def again(loop: Loop, train: Train, **changes) -> Loop:
    """The same loop with other settings, over the same weights."""
    parts = {"layout": loop.layout, "kept": None, "method": loop.method} | changes
    made = Loop(loop.policy, loop.objective, train, loop.sequences, accelerator=loop.accelerator, **parts)
    made.rows = loop.rows  # with what is known of them
    return made


def plainly(loop: Loop, train: Train) -> Loop:
    """The same through nothing but the model's own forward."""
    made = again(loop, train, layout=pad)
    made.policy = Policy(loop.policy.model)
    made.policy.teacher, made.policy.__dict__["bends_logits"] = loop.policy.teacher, True
    return made


def gradient(loop: Loop) -> tuple[Tensor, Tensor]:
    """The first step's loss and gradient, both divided."""
    for weight in loop.weights.values():
        weight.grad = None
    tallies, _ = loop.gradient(0)
    loop.divide(float(tallies["loss"].count))
    found = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in loop.weights.values()]
    slopes = torch.cat([one.flatten().float().cpu() for one in found])
    return torch.tensor([tallies["loss"].mean()]), slopes


def apart(one: Tensor, other: Tensor) -> float:
    length = max(float(one.norm()), float(other.norm()))
    return float((one - other).norm()) / length if length else 0.0


def stir(weights: dict[str, Parameter]) -> None:
    """Move weights that begin at zero, as half of LoRA's do: the other half would have no gradient."""
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in weights.values():
            if not bool(weight.any()):
                weight.copy_(0.01 * torch.randn(weight.shape, generator=draw))


@contextmanager
def exactly_alike(policy: Policy) -> Iterator[None]:
    """Within it nothing is dropped at random."""
    training = policy.model.training
    policy.model.eval()
    try:
        yield
    finally:
        policy.model.train(training)


@contextmanager
def slowly(policy: Policy) -> Iterator[bool]:
    """Within it, layers of ours compute as PEFT's do. Whether there are any."""
    from ..methods._lora_linear import LoRALinear

    ours = [module for module in policy.model.modules() if isinstance(module, LoRALinear)]
    for module in ours:
        module.fast = False
    try:
        yield bool(ours)
    finally:
        for module in ours:
            module.fast = True
