"""From what a run has to do and what a device can, to memory, time and cost; what it rests on is told beside it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from .blank import Held, alike, blank, held, numbers, refuse_unfit
from .device import Device
from .known import Found
from .memory import in_memory
from .rehearse import Count, Rehearsed, Told, rehearse
from .teacher import taught_by
from .work import Part, Work

if TYPE_CHECKING:
    from ..model.policy import Policy
    from ..run import Run


@dataclass(frozen=True)
class Setting:
    """On what a run is to be done."""

    device: Device
    devices: int = 1
    shard: bool = False
    """Whether weights, gradients and the optimizer's states are cut into as many parts as there are devices (FSDP)."""
    price: float | None = None
    """What an hour of one device costs."""


@dataclass
class Plan:
    """What a run will take."""

    parameters: int
    trainable: int
    memory: dict[str, float]
    """GB on each device, by what it is for; together they are `peak`."""
    peak: float
    step_seconds: float
    steps: int
    train_seconds: float
    more_seconds: float
    """Measuring before and after, and what is asked of a reference first."""
    tokens: float
    flops: float
    """Of one step, on one device."""
    cost: float | None = None
    room: float = 0.0
    """GB that the device has."""
    assumed: list[str] = field(default_factory=list)
    corrected: dict[str, Any] = field(default_factory=dict)
    """By what earlier runs on this machine had it wrong, and how many."""

    @property
    def fits(self) -> bool:
        return self.peak <= self.room

    @property
    def hours(self) -> float:
        return (self.train_seconds + self.more_seconds) / 3600


@dataclass
class Blanks:
    """A model without weights, whole and of few blocks, and what was gone through with it."""

    config: Any
    whole: Policy
    few: dict[int, Policy] = field(default_factory=dict)
    gone: dict[Any, Rehearsed] = field(default_factory=dict)


MADE: dict[Any, Blanks] = {}
MOST = 8
"""Blanks that are kept: what is tried to make a run fit differs in little."""


def blanks(subject: Subject) -> Blanks:
    """The blanks of a run, made once for all runs that differ in nothing that they depend on."""
    run, found, device = subject.run, subject.found, subject.setting.device
    held = numbers(run.model.precision, device)
    key = (id(found.config), repr(run.method), held, subject.labels, run.train.gradient_checkpointing)
    if key not in MADE or MADE[key].config is not found.config:  # a number may come to mean another config
        while len(MADE) >= MOST:
            del MADE[next(iter(MADE))]
        MADE[key] = Blanks(found.config, blank(run, found, device, subject.labels))
    return MADE[key]


@dataclass
class Subject:
    """A run, and what was found out of its model."""

    run: Run
    found: Found
    setting: Setting
    labels: tuple[str, ...] = ()
    assumed: list[str] = field(default_factory=list)

    teacher: Subject | None = None
    """The model that it learns from, which stays as it is."""

    def __post_init__(self) -> None:
        if taught := taught_by(self.run, self.assumed):
            self.teacher = Subject(*taught, self.setting, assumed=self.assumed)
        self.blanks = blanks(self)
        self.policy: Policy = self.blanks.whole
        refuse_unfit(self.run, self.policy)
        self.held: Held = held(self.policy, self.run.model.precision)
        self.half = str(self.policy.bare.dtype) != "torch.float32" or self.run.train.bf16 or self.run.train.fp16

    @property
    def told(self) -> Told:
        """What the head is asked for."""
        objective = self.run.objective
        return Told("entropy" in objective.looks(), objective.targets in ("pairs", "liked", "prompts"))

    def rehearse(self, part: Part, learnt: float, learns: bool = True) -> Rehearsed:
        """A part of a step; of a deep model whose blocks are alike, by fewer blocks."""
        key = part, learnt, learns, self.told
        if key not in self.blanks.gone:
            self.blanks.gone[key] = self.go_through(
                part, len(part.own) if self.labels else round(part.tokens * learnt), learns
            )
        return self.blanks.gone[key]

    def go_through(self, part: Part, learnt: int, learns: bool) -> Rehearsed:
        import torch

        blocks = self.found.config.get_text_config().num_hidden_layers
        with torch.set_grad_enabled(learns):
            if blocks <= FEW[1] or not alike(self.policy):
                return rehearse(self.policy, part, learnt, self.told)
            few, more = (rehearse(self.shallow(depth), part, learnt, self.told) for depth in FEW)
            return few.plus(more, (blocks - FEW[0]) / (FEW[1] - FEW[0]))

    def shallow(self, blocks: int) -> Policy:
        """The policy with so many blocks."""
        few = self.blanks.few
        if blocks not in few:
            few[blocks] = blank(self.run, self.found, self.setting.device, self.labels, blocks)
        return few[blocks]

    def counted(self, part: Part, learnt: float, learns: bool = True) -> Rehearsed:
        """The same, or by a Llama of the same sizes where the model cannot be gone through without its weights."""
        try:
            return self.rehearse(part, learnt, learns)
        except (
            RuntimeError,
            NotImplementedError,
            TypeError,
            AttributeError,
            ValueError,
            KeyError,
            IndexError,
        ) as error:
            kind = type(self.policy.bare).__name__
            why = str(error).strip().split("\n")[0][:100]
            sentence = f"{kind} cannot be gone through without weights ({why}): activations are those of a Llama"
            self.assumed += (
                [f"{sentence} of its sizes"] if not any(one.startswith(sentence) for one in self.assumed) else []
            )
            return replaced(self).rehearse(part, learnt, learns)


FEW = (2, 4)


def replaced(subject: Subject) -> Subject:
    """The run on a Llama of the same sizes; experts count as often as a token meets them."""
    from ..methods.lora import LoRA
    from .known import llama_like

    text = subject.found.config.get_text_config()
    said = {key: getattr(text, key, None) for key in ("hidden_size", "num_hidden_layers", "num_attention_heads")}
    inner = getattr(text, "intermediate_size", None) or 4 * text.hidden_size
    said |= {"vocab_size": text.vocab_size, "intermediate_size": inner * getattr(text, "num_experts_per_tok", 1)}
    said["num_key_value_heads"] = getattr(text, "num_key_value_heads", None)
    found = replace(subject.found, config=llama_like(said, "config.json"))
    whole = subject.held.trainable == subject.held.total
    run = subject.run if whole else replace(subject.run, method=LoRA())
    return Subject(run, found, subject.setting, subject.labels)


def estimate(subject: Subject, work: Work, states: float) -> Plan:
    """The plan of a run; `states` is how many bytes its optimizer remembers."""
    run, setting, weights = subject.run, subject.setting, subject.held
    largest = subject.counted(work.largest, work.learnt)
    typical = largest if work.typical == work.largest else subject.counted(work.typical, work.learnt)
    memory = in_memory(subject, work, largest, states)
    step, flops = step_seconds(subject, work, (largest, typical), states)
    more = before_and_after(subject, work, typical)
    hours = (step * work.steps + more) / 3600
    return Plan(
        parameters=weights.total,
        trainable=weights.trainable,
        memory=memory,
        peak=sum(memory.values()),
        step_seconds=step,
        steps=work.steps,
        train_seconds=step * work.steps,
        more_seconds=more,
        tokens=work.tokens,
        flops=flops,
        cost=None if setting.price is None else setting.price * setting.devices * hours,
        room=setting.device.memory,
        assumed=[*subject.found.assumed, *work.assumed, *subject.assumed, *taken_for_granted(run, setting)],
    )


def taken_for_granted(run: Run, setting: Setting) -> list[str]:
    device, said = setting.device, []
    if device.kind == "gpu":
        said.append(f"{device.name}: 45 % of what its maker promises is reached ({device.source})")
    if setting.devices > 1:
        said.append("several devices: planned, while `tunesmith train` runs in one process as yet")
    if device.kind == "gpu" and not device.bf16 and (run.train.bf16 or run.model.precision.name == "bf16"):
        said.append(f"{device.name} has no bf16: it would compute in fp16 or fp32")
    return said


# --- time -------------------------------------------------------------------------------------------------------------


def step_seconds(
    subject: Subject, work: Work, counts: tuple[Rehearsed, Rehearsed], states: float
) -> tuple[float, float]:
    """Seconds of a step, and the flops of it."""
    device, weights = subject.setting.device, subject.held
    largest, typical = counts
    most, some = work.largest.tokens, work.typical.tokens
    seconds = [device.seconds(one.step, subject.half) for one in (largest, typical)]
    slope = (seconds[0] - seconds[1]) / (most - some) if most > some else 0.0
    parts, tokens = work.each(), work.per_step()
    passes = max(parts * (seconds[1] - slope * some) + slope * tokens, 0.2 * parts * seconds[1])
    update = (UPDATE * weights.gradients + 2.0 * states) / device.bandwidth + TOUCHED * weights.learning * device.call
    flops = typical.step.all_flops / max(some, 1) * tokens
    looks = work.looks * tokens * device.seconds(typical.forward, subject.half) / max(some, 1)
    looks += tokens * listening(subject, work)
    return passes + looks + update + exchanged(subject) + answering(subject, work), flops


UPDATE = 9.0
"""How often so much as gradients are is read or written once they are there: they are divided and cut (twice each),
measured, read for the update and set to nothing, and weights read and written."""
TOUCHED = 1.5
"""Operations on each weight that learns: its mean is an operation of its own, and all the others are two or three."""


def listening(subject: Subject, work: Work) -> float:
    """Seconds in which the teacher reads a token, if there is one."""
    teacher = subject.teacher
    if teacher is None:
        return 0.0
    read = teacher.counted(work.typical, work.learnt, learns=False).step
    return subject.setting.device.seconds(read, teacher.half) / max(1, work.typical.tokens)


def exchanged(subject: Subject) -> float:
    """Seconds in which devices tell each other their gradients, and with shards their weights."""
    setting, weights = subject.setting, subject.held
    if setting.devices == 1:
        return 0.0
    others = (setting.devices - 1) / setting.devices
    told = 2 * weights.gradients * others
    if setting.shard:
        told = (weights.gradients + 2 * weights.bytes * subject.run.train.gradient_accumulation_steps) * others
    return told / setting.device.link


def answering(subject: Subject, work: Work) -> float:
    """Seconds in which the model writes what a step learns from, its share of a rollout."""
    if not work.answers:
        return 0.0
    return work.rollouts * work.answers / work.writing * work.completion * word(subject, work.writing)


def word(subject: Subject, rows: int) -> float:
    """Seconds until each of so many rows has one word more: all weights are read for it."""
    device = subject.setting.device
    count: Count = subject.counted(Part((1,) * min(rows, 64)), 1.0, learns=False).step
    return max(device.seconds(count, subject.half), subject.held.bytes / device.bandwidth)


def before_and_after(subject: Subject, work: Work, typical: Rehearsed) -> float:
    device, run = subject.setting.device, subject.run
    token = device.seconds(typical.forward, subject.half) / max(1, work.typical.tokens)
    held_out = sum(part.tokens for part in work.measured)
    measured = 2 * held_out * token
    measured += 2 * work.written * word(subject, 10) if work.written else 0.0
    measured += 2 * sum(one.tokens for one in work.ranked) * token
    measured += 2 * held_out * listening(subject, work)
    asked = work.tokens * token if "reference" in run.objective.looks() and not work.answers else 0.0
    return measured + asked
