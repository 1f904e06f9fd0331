"""What is said and found out before the first step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch

from ..config.load import dump
from ..data.batch import pad, share
from ..machine import facts
from ..model.reference import Asker
from .glimpses import glimpses

if TYPE_CHECKING:
    from ..data.batch import Layout
    from ..data.rendering.tokens import Tokens
    from ..evaluate.evaluate import Examiner
    from ..model.policy import Policy
    from ..run import Run
    from .loop import Loop


def ways(loop: Loop) -> Iterator[str]:
    """How this run computes, in words, where it is not evident from its recipe."""
    slow = loop.accelerator.device.type == "cpu" and "512" not in torch.backends.cpu.get_cpu_capability()
    if loop.accelerator.device.type == "cuda":
        yield f"attention: by {loop.policy.bare.config._attn_implementation}"
    if loop.train.bf16 and slow:
        yield "train.bf16: this processor computes bfloat16 in software, several times slower than fp32"
    if "logp" in loop.objective.looks() and loop.policy.bends_logits:
        yield "logits: made by the model itself, of all tokens at once: its head is more than a linear layer"
    yield laid_out(loop)


def laid_out(loop: Loop) -> str:
    """How batches come about, in words."""
    train, lengths = loop.train, loop.order.lengths
    how = "padded: this model mixes packed rows up" if loop.layout is pad else "packed, without padding"
    how += ", the beginning that all have in common once" if loop.layout is share else ""
    if not loop.order.together:
        return f"batches: {how}"
    most = train.max_tokens_per_batch or loop.cutoff
    what, count = ("rows" if train.packing else "batches"), len(loop.order.together)
    longer = sum(length > most for length in lengths)
    alone = f", {longer:,} longer examples alone" if longer else ""
    return f"batches: {how}; {len(lengths):,} examples in {count:,} {what} of at most {most:,} tokens{alone}"


def begin_among(
    run: Run, policy: Policy, sequences: Sequence[Tokens], layout: Layout, say: Callable[[str], None]
) -> None:
    """Have the method begin at what the model makes of training rows, if it does."""
    rows = partial(glimpses, sequences, layout, run.train.seed)
    if made := run.method.begin_among(policy.model, rows, policy.outcome):
        say(made)


def before_learning(run: Run, loop: Loop, examiners: Sequence[Examiner], base: str, say: Callable[[str], None]) -> None:
    """Find out what the objective wants to know of the model, whose weights have the hash `base`, before it learns."""
    if loop.answers:  # what it says is not known yet
        return
    key = {"base": base, "model": dump(run.model), "method": dump(run.method), "seed": run.train.seed}
    asker = Asker(loop.policy, run.method, loop.layout, key | facts(loop.accelerator.device), say)
    steps = min(loop.order.total, loop.order.epoch_steps * loop.order.epochs)
    seen = sorted({n for step in range(steps) for part in loop.order.batches(step) for n in loop.sequences_of(part)})
    loop.rows.look_back(run.objective, asker, seen, loop.cutoff)
    for examiner in examiners:
        if examiner.examples:
            examiner.rows.look_back(run.objective, asker, range(len(examiner.sequences)), loop.cutoff)
