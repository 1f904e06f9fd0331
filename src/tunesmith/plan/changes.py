"""What makes a run fit that does not: the changes that cost least, tried by planning anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ..errors import Refusal
from ..optimizers.adamw import AdamW, FusedAdamW
from ..run import Run
from .estimate import Plan, Setting


class Change(NamedTuple):
    """Something that a recipe, or where it is run, may have otherwise."""

    words: tuple[str, ...]
    """As they would be typed after `tunesmith plan RECIPE`."""
    run: Run
    setting: Setting


@dataclass(frozen=True)
class Way:
    """Changes that were tried together."""

    words: tuple[str, ...]
    peak: float
    room: float
    step_seconds: float

    @property
    def fits(self) -> bool:
        return self.peak <= self.room


Planned = Callable[[Run, Setting], Plan]
GIVEN_UP = (Refusal, RuntimeError, ValueError)


def ways(run: Run, setting: Setting, plan: Planned) -> list[Way]:
    """Every change by itself, then those that fit together: the cheapest first, none of them needless."""
    tried = [way for change in changes(run, setting) if (way := attempt(change, plan)) is not None]
    if any(way.fits for way in tried):
        return tried
    together = Change((), run, setting)
    for make in ORDER:
        change = make(together.run, together.setting)
        if change is None:
            continue
        together = Change((*together.words, *change.words), change.run, change.setting)
        way = attempt(together, plan)
        if way is not None and way.fits:
            return [*tried, way]
    return tried


def attempt(change: Change, plan: Planned) -> Way | None:
    """What a change comes to; nothing where the run cannot be had so."""
    try:
        made = plan(change.run, change.setting)
    except GIVEN_UP:
        return None
    return Way(change.words, made.peak, made.room, made.step_seconds)


def changes(run: Run, setting: Setting) -> Iterator[Change]:
    for make in ORDER:
        if change := make(run, setting):
            yield change


def train(run: Run, **said: Any) -> Run:
    return replace(run, train=replace(run.train, **said))


def measured_fewer(run: Run, setting: Setting) -> Change | None:
    """Held-out rows no more at once than are learnt from."""
    size = run.train.per_device_train_batch_size
    if not run.eval.enabled or run.eval.batch_size <= size:
        return None
    return Change((f"eval.batch_size={size}",), replace(run, eval=replace(run.eval, batch_size=size)), setting)


def smaller_batch(run: Run, setting: Setting) -> Change | None:
    """The same gradient, from batches of one example, where it can be added up."""
    size, steps = run.train.per_device_train_batch_size, run.train.gradient_accumulation_steps
    in_tokens = run.train.packing or run.train.max_tokens_per_batch
    if size == 1 or in_tokens or run.train.optimizer_in_backward or setting.device.kind == "cpu":
        return None
    words = ("train.per_device_train_batch_size=1", f"train.gradient_accumulation_steps={size * steps}")
    made = train(run, per_device_train_batch_size=1, gradient_accumulation_steps=size * steps)
    return Change(words, made, setting)


def checkpointing(run: Run, setting: Setting) -> Change | None:
    if run.train.gradient_checkpointing:
        return None
    return Change(("train.gradient_checkpointing=true",), train(run, gradient_checkpointing=True), setting)


def half(run: Run, setting: Setting) -> Change | None:
    """Weights in 16 bits; adapters do not suffer, full tuning loses small steps."""
    from ..precision.plain import BF16

    if run.model.precision.name != "fp32" or not setting.device.bf16 or setting.device.kind == "cpu":
        return None
    return Change(("model.precision=bf16",), replace(run, model=replace(run.model, precision=BF16())), setting)


def eight_bits(run: Run, setting: Setting) -> Change | None:
    """The optimizer's states in 8 bits a number."""
    from ..optimizers.bits_8 import AdamW8bit

    if not isinstance(run.train.optim, AdamW | FusedAdamW):
        return None
    return Change(("train.optim=adamw_bnb_8bit",), train(run, optim=AdamW8bit()), setting)


def lora(run: Run, setting: Setting) -> Change | None:
    """An update beside the weights, which need no gradients then, and no states."""
    from ..methods.lora import LoRA

    if run.method.detachable:
        return None
    return Change(("method=lora", "train.learning_rate=2e-4"), train(replace(run, method=LoRA())), setting)


def four_bits(run: Run, setting: Setting) -> Change | None:
    """QLoRA (arXiv:2305.14314)."""
    from ..methods.lora import LoRA
    from ..precision.bitsandbytes import NF4

    if run.model.precision.quantised:
        return None
    words = ("model.precision=nf4",)
    if not run.method.detachable:
        run, words = replace(run, method=LoRA()), ("method=lora", "train.learning_rate=2e-4", *words)
    return Change(words, replace(run, model=replace(run.model, precision=NF4())), setting)


def away(run: Run, setting: Setting) -> Change | None:
    """Frozen weights that wait elsewhere, but for an eighth of the device's memory."""
    if run.model.max_memory is not None or not run.method.detachable or run.model.precision.quantised:
        return None
    if run.train.torch_compile:  # cannot translate what is elsewhere
        return None
    most = round(setting.device.memory / 8, 1)
    return Change((f"model.max_memory={most}",), replace(run, model=replace(run.model, max_memory=most)), setting)


def shorter(run: Run, setting: Setting) -> Change | None:
    length = run.data.max_length // 2
    if length < 128:
        return None
    return Change((f"data.max_length={length}",), replace(run, data=replace(run.data, max_length=length)), setting)


def shards(run: Run, setting: Setting) -> Change | None:
    """More devices, each with its share of weights, gradients and states."""
    if setting.device.kind == "cpu" or (setting.shard and setting.devices >= 8):
        return None
    count = max(8, setting.devices)
    return Change((f"--devices {count}", "--shard"), run, replace(setting, devices=count, shard=True))


ORDER = (measured_fewer, smaller_batch, checkpointing, half, eight_bits, lora, four_bits, away, shorter, shards)
"""From what costs nothing to what costs most."""
