"""What is said and found out before the first step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from ..config.load import dump
from ..data.batch import pad, share
from ..evaluate.evaluate import Examiner
from ..machine import accelerator, facts
from ..model.another import Memory, another, present, same_words
from ..model.reference import Asker
from ..model.rows import Oracle, Rows, Strangers
from .glimpses import glimpses
from .loop import order, sequences_of

if TYPE_CHECKING:
    from ..data.batch import Layout
    from ..data.example import Example
    from ..data.keeping.material import Material
    from ..data.rendering.tokens import Tokens
    from ..model.policy import Policy
    from ..run import Run
    from .loop import Loop
    from .order import Order

Held = TypeVar("Held")


def ways(loop: Loop) -> Iterator[str]:
    """How this run computes, in words, where it is not evident from its recipe."""
    slow = loop.accelerator.device.type == "cpu" and "512" not in torch.backends.cpu.get_cpu_capability()
    if loop.accelerator.device.type == "cuda":
        yield f"attention: by {loop.policy.bare.config._attn_implementation}"
    if loop.train.bf16 and slow:
        yield "train.bf16: this processor computes bfloat16 in software, several times slower than fp32"
    if "logp" in loop.objective.looks() and loop.policy.bends_logits:
        yield "logits: made by the model itself, of all tokens at once: its head is more than a linear layer"
    if told := unusual(loop):
        yield told
    yield laid_out(loop)


def unusual(loop: Loop) -> str:
    """What to say of a learning rate at which a method learns nothing, or forgets: those of recipes for another one."""
    name, rate = getattr(loop.method, "name", ""), loop.train.learning_rate
    low, high = loop.method.suits
    if not name or loop.answers or low <= rate <= high or "adam_beta1" not in loop.train.optim.reads:
        return ""
    side, take = ("low", low) if rate < low else ("high", high)
    within = f"which learns best between {low:g} and {high:g}"
    return f"train.learning_rate: {rate:g} is {side} for {name}, {within}; try {take:g}"


def laid_out(loop: Loop) -> str:
    """How batches come about, in words."""
    train, lengths = loop.train, loop.order.lengths
    how = "padded: this model mixes packed rows up" if loop.layout is pad else "packed, without padding"
    how += ", the beginning that all have in common once" if loop.layout is share else ""
    if found := shares(loop):
        return f"batches: {how}; in each {', '.join(f'{count} of {name}' for name, count in found.items())}"
    if not loop.order.together:
        return f"batches: {how}"
    most = train.max_tokens_per_batch or loop.cutoff
    what, count = ("rows" if train.packing else "batches"), len(loop.order.together)
    longer = sum(length > most for length in lengths)
    alone = f", {longer:,} longer examples alone" if longer else ""
    return f"batches: {how}; {len(lengths):,} examples in {count:,} {what} of at most {most:,} tokens{alone}"


def shares(loop: Loop) -> dict[str, int]:
    """How many examples of each task, or source, every batch has, where batches are balanced."""
    tasks, found = getattr(loop.sequences, "tasks", ()), {}
    for number, quota in enumerate(loop.order.quotas):
        task = tasks[number] if number < len(tasks) else None
        name = task.name if task else f"source {number + 1}"
        found[name] = found.get(name, 0) + quota
    return found


def recorded(loop: Loop, material: Material) -> dict[str, Any]:
    """What the record says of the model and of what it learns."""
    policy = loop.policy
    parameters = {
        "total": sum(weight.numel() for weight in policy.model.parameters()),
        "trainable": sum(weight.numel() for weight in policy.trainable().values()),
    }
    return {"parameters": parameters, "tasks": [asdict(task) for task in material.tasks], "batch": shares(loop)}


def begin_among(
    run: Run, policy: Policy, sequences: Sequence[Tokens], layout: Layout, say: Callable[[str], None]
) -> None:
    """Have the method begin at what the model makes of training rows, if it does."""
    rows = partial(glimpses, sequences, layout, run.train.seed)
    if made := run.method.begin_among(policy.model, rows, policy.outcome):
        say(made)


def own_oracle(run: Run, loop: Loop, base: str, say: Callable[[str], None]) -> Asker:
    """The model itself, whose weights have the hash `base`, before it learns."""
    key = {"base": base, "model": dump(run.model), "method": dump(run.method), "seed": run.train.seed}
    return Asker(loop.policy, run.method, loop.layout, key | facts(loop.accelerator.device), say)


def measured(run: Run, test: Held, validation: Held, callbacks: bool) -> list[Held]:
    """Of what is held out, that which is measured before and after, and that meanwhile: for callbacks may ask for it at
    any time."""
    meanwhile = run.train.eval_strategy != "no" or callbacks
    return [one for one, wanted in ((test, run.eval.enabled), (validation, meanwhile)) if wanted]


def before_learning(
    run: Run, loop: Loop, examiners: Sequence[Examiner], oracle: Oracle, say: Callable[[str], None]
) -> None:
    """Find out what the objective wants to know of the model before it learns, or of another."""
    if loop.answers:  # what it says is not known yet
        return
    ask(oracle, run, loop.rows, loop.order, examiners, loop.accelerator.autocast())
    others = loop.rows.strangers.sequences if loop.rows.strangers else None
    if isinstance(others, Strangers) and others.one_prompt:
        say(
            f"{run.objective.name}: all {len(others):,} answers are to one prompt: its baseline, meant for answers to"
            " other prompts, is measured on other answers to the same one"
        )


def ask_another(
    run: Run, material: Material, held_out: Sequence[Sequence[Example]], say: Callable[[str], None]
) -> Memory | None:
    """What the model that objective.reference names says of all that the run looks at, if there is one; to be asked
    while no other model is in memory. Of what is held out, that which will be measured."""
    folder = another(run)
    if folder is None:
        return None
    same_words(folder, material.renderer.tokenizer)
    steps = order(run.train, run.objective, material.sequences, run.data.max_length)
    examiners = [Examiner(material, run.objective, run.eval, pad, examples) for examples in held_out]
    with present(folder, run, say) as memory:
        ask(memory, run, Rows(material.sequences), steps, examiners, accelerator(run.train).autocast())
    return memory


def ask(
    oracle: Oracle, run: Run, rows: Rows, steps: Order, examiners: Sequence[Examiner], learning: AbstractContextManager
) -> None:
    """Ask it of all sequences that a run looks at: those that are learnt from in the numbers in which they are."""
    cutoff = run.data.max_length
    with learning:
        rows.look_back(run.objective, oracle, sequences_of(steps.seen, run.objective), cutoff)
    for examiner in examiners:
        if examiner.examples:
            examiner.look_back(oracle, cutoff)
