"""The one training loop, for every method and every objective, over accelerate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate.utils import gather_object

from ..data.batch import Batch, Layout, branches, pad, share
from ..data.keeping.store import lengths, sources
from ..data.rendering.render import Tokens
from ..errors import Diverged
from ..machine import random_state, set_random_state
from ..methods.base import Method
from ..model.learning import adding_up
from ..model.load import memory_error
from ..model.policy import Policy
from ..model.rows import Rows
from ..objectives.base import Loss, Objective, Tally
from ..run import Train
from .optim import optimizer, schedule
from .order import Order
from .trouble import diverged, suspects

if TYPE_CHECKING:
    from accelerate import Accelerator

    from ..model.kept import Kept
    from ..rollout.buffer import Buffer

AT_ONCE = 832
"""Tokens that a CPU computes at once; more is hardly faster, and takes memory in proportion."""


@dataclass
class Step:
    """What one optimizer step measured."""

    number: int
    """Steps taken, this one counted."""
    tallies: dict[str, Tally]
    """Over all processes: the loss and what the objective watches."""
    tokens: int
    learning_rate: float
    grad_norm: float
    skipped: str = ""
    """Why the step was not taken, if it was not."""

    @property
    def loss(self) -> float:
        return self.tallies["loss"].mean()


def silent(event: str) -> None:
    """Tell nobody."""


@dataclass
class Loop:
    """Takes the steps of a run. A step's gradient is that of its summed loss over its whole count, however cut."""

    policy: Policy
    objective: Objective
    train: Train
    sequences: Sequence[Tokens]
    layout: Layout
    accelerator: Accelerator
    kept: Kept | None = None
    """States that need not be computed again."""
    cutoff: int = 2048
    """Tokens in a row that is filled up."""
    answers: Buffer | None = None
    """Those that the model gives while it learns, where the objective learns from these."""
    method: Method = field(default_factory=Method)
    """Has a word in what a step is, beside the objective's."""
    cuts: int = 1
    """Into how many times as many parts a batch is cut, so that it fits into memory."""
    order: Order = field(init=False)
    rows: Rows = field(init=False)
    """The sequences, and what is known of them before."""
    begun: bool = False
    """Whether weights are being changed."""

    def __post_init__(self) -> None:
        processes = self.accelerator.process_index, self.accelerator.num_processes
        self.rows = Rows(self.sequences)
        self.order = order(self.train, self.objective, self.sequences, self.cutoff, processes)
        self.weights = self.policy.trainable()
        self.gone: list[torch.Tensor] = []
        for weight in self.weights.values():
            weight.grad = None if self.train.optimizer_in_backward else torch.zeros_like(weight)
        self.optimizer = optimizer(self.train, self.policy, self.method)
        self.scheduler = schedule(self.train, self.optimizer, self.order.total)
        self.optimizer_step = self.accelerator.prepare_optimizer(self.optimizer)
        if self.answers:
            self.answers.seeing = lambda: self.accelerator.autocast()

    def fit(self, start: int = 0, tell: Callable[[str], None] = silent) -> Iterator[Step]:
        """Take every step from `start` on, and yield what it measured. Raises Diverged before a bad step is taken.

        `tell` hears of what happens within a step, by the names of transformers.TrainerCallback.
        """
        for number in range(start, self.order.total):
            if number % self.order.epoch_steps == 0:
                tell("on_epoch_begin")
            tell("on_step_begin")
            with self.train.optim.learning(self.optimizer):
                tallies, tokens = self.gradient(number)
            self.add_up_gradients()
            self.add_up(tallies)
            norm = self.divide(float(tallies["loss"].count))
            learning_rate = float(self.scheduler.get_last_lr()[0])
            step = Step(number + 1, tallies, tokens, learning_rate, norm)
            sound = self.sound(step)
            if sound and tallies["loss"].count:  # or else momentum and decay would move weights where there was nothing
                self.take(step, tell)
            elif self.accelerator.scaler:
                self.accelerator.scaler.update()  # which is waited for since the gradients were unscaled
            if not sound:
                step.skipped = suspects(self, number)
                if self.train.on_nan == "stop":
                    raise Diverged(diverged(step, self.train.optimizer_in_backward))
            self.scheduler.step()
            self.optimizer.zero_grad(set_to_none=False)
            yield step

    def take(self, step: Step, tell: Callable[[str], None]) -> None:
        """Change the weights."""
        tell("on_pre_optimizer_step")
        self.begun = True
        self.optimizer_step.step()
        tell("on_optimizer_step")
        self.method.after_step(self.policy.model, step.number, self.order.total)
        self.begun = False

    def hear(self, number: int) -> dict[str, Tally]:
        """Have prompts answered, if a step needs new answers; what is watched of them."""
        if self.answers is None:
            return {}
        rollout, heard = number // self.order.repeats, {}
        if self.answers.number != rollout:
            heard = self.answers.fill(rollout, [n for batch in self.order.batches(number) for n in batch])
        self.rows = self.answers.rows
        return heard

    def batches(self, number: int) -> list[list[int]]:
        """The examples of each of a step's batches."""
        if self.answers is None:
            return self.order.batches(number)
        return self.answers.batches(number, self.train.gradient_accumulation_steps)

    def gradient(self, number: int) -> tuple[dict[str, Tally], int]:
        """Add up the gradients of a step's batches, undivided; what they measured, and how many tokens they had.

        With auto_batch, batches that do not fit into memory are cut in halves until they do.
        """
        heard = self.hear(number)
        before = random_state()
        while True:
            try:
                tallies, tokens = self.summed(number)
                return tallies | heard, tokens
            except (MemoryError, RuntimeError) as error:
                smallest = max(map(len, self.parts(number))) == self.objective.side_by_side
                if not self.train.auto_batch or smallest or not memory_error(error):
                    raise
            self.cuts *= 2
            set_random_state(before)
            self.optimizer.zero_grad(set_to_none=False)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def summed(self, number: int) -> tuple[dict[str, Tally], int]:
        tallies: dict[str, Tally] = {}
        tokens = 0
        for chosen, known in self.known(number):
            batch, loss = self.judge(chosen, known)
            self.backward(loss)
            tokens += batch.tokens
            for name, tally in loss.tallies().items():
                tallies[name] = tallies[name] + tally if name in tallies else tally
        return tallies or {"loss": Tally(0.0, 0)}, tokens

    def judge(self, chosen: Sequence[int], known: dict[str, Any]) -> tuple[Batch, Loss]:
        """Some sequences as a batch, and what the objective makes of them, given what is known of the whole step."""
        batch = self.rows.batch(chosen, self.layout).to(self.accelerator.device)
        below = self.kept.below(chosen, batch.borrowed) if self.kept else nullcontext()
        with self.accelerator.autocast(), below:
            looks = self.policy.look(batch, self.objective.looks())
            apart = self.answers.trusted(batch, looks) if self.answers else {}
            loss = self.objective.loss(batch, **looks, **known)
            return batch, replace(loss, metrics={**loss.metrics, **apart}) if apart else loss

    def known(self, number: int) -> list[tuple[list[int], dict[str, Any]]]:
        """A step's parts, each with what the objective must know of all of it, over all processes."""
        parts = list(self.parts(number))
        with self.accelerator.autocast():
            known = self.rows.known(self.objective, self.policy, self.layout, parts, self)
        if self.objective.asks("progress"):
            for one in known:
                one["progress"] = number / max(1, self.order.total - 1)
        return list(zip(parts, known, strict=True))

    def backward(self, loss: Loss) -> None:
        """Add a batch's gradient to what there is.

        With optimizer_in_backward it is the step's only batch: every weight is changed as soon as its gradient is
        whole, and the gradient dropped; its length stays in `gone`. A loss that is no number changes nothing.
        """
        if not self.train.optimizer_in_backward:
            with adding_up():
                self.accelerator.backward(loss.sum)
        elif bool(torch.as_tensor(loss.sum).isfinite()):

            def take(weight: torch.Tensor) -> None:
                gradient = weight.grad
                assert gradient is not None
                gradient /= loss.count
                self.gone.append(gradient.norm())
                self.optimizer_step.step()  # of the only weight that has a gradient now
                weight.grad = None

            hooks = [weight.register_post_accumulate_grad_hook(take) for weight in self.weights.values()]
            try:
                self.accelerator.backward(loss.sum)
            finally:
                for hook in hooks:
                    hook.remove()

    def parts(self, number: int) -> Iterator[list[int]]:
        """A step's batches; on a CPU a large one in parts of like size, whose gradient is the same in less memory."""
        for examples in self.batches(number):
            whole = self.layout is pad or self.accelerator.device.type != "cpu" or self.train.optimizer_in_backward
            lengths = dict(enumerate(self.sizes(examples)))  # by their places: one may stand there twice
            count = 1 if whole else -(-sum(lengths.values()) // AT_ONCE)
            for part in in_parts(lengths, count * self.cuts):
                yield self.sequences_of([examples[at] for at in part])

    def sequences_of(self, examples: Sequence[int]) -> list[int]:
        """The numbers of the sequences that examples have."""
        return sequences_of(examples, self.objective)

    def sizes(self, examples: Sequence[int]) -> list[int]:
        """How many tokens each example brings into a batch of them all."""
        return sizes([self.rows.sequences[n] for n in self.sequences_of(examples)], self.layout, self.objective)

    def add_up_gradients(self) -> None:
        """With several processes, add up their gradients."""
        if self.accelerator.num_processes == 1:
            return
        for weight in self.weights.values():
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
            summed: Any = self.accelerator.reduce(weight.grad, "sum")
            weight.grad = summed

    def add_up(self, tallies: dict[str, Tally]) -> None:
        """With several processes, add up their tallies; one that had no batch in a step counted less than others."""
        if self.accelerator.num_processes == 1:
            return
        names = sorted({name for counted in gather_object([list(tallies)]) for name in counted})
        held = [tallies.get(name, Tally(0.0, 0)) for name in names]
        pairs = torch.tensor([[float(one.sum), float(one.count)] for one in held], device=self.accelerator.device)
        summed: Any = self.accelerator.reduce(pairs, "sum")
        tallies |= {name: Tally(*pair) for name, pair in zip(names, summed.tolist(), strict=True)}

    def gather(self, values: torch.Tensor) -> tuple[torch.Tensor, int]:
        """The rows of all processes, and where this one's begin."""
        if self.accelerator.num_processes == 1:
            return values, 0
        whole: list[torch.Tensor] = gather_object([values.cpu()])
        before = whole[: self.accelerator.process_index]
        return torch.cat(whole).to(values.device), sum(map(len, before))

    def divide(self, count: float) -> float:
        """Make the summed gradient a mean, cut it to max_grad_norm, and return the length that it had."""
        self.accelerator.unscale_gradients(self.optimizer_step)
        gradients = [weight.grad for weight in self.weights.values() if weight.grad is not None]
        for gradient in gradients:
            gradient /= count or 1.0  # weights may sum up to less than one; of nothing the gradient is nothing
        penalty = self.method.penalty(self.policy.model)
        if penalty is not None:
            penalty.backward()
        norm = torch.nn.utils.get_total_norm([*self.gone, *gradients])
        self.gone.clear()
        if self.train.max_grad_norm > 0:
            torch.nn.utils.clip_grads_with_norm_(self.weights.values(), self.train.max_grad_norm, norm)
        return float(norm)

    def sound(self, step: Step) -> bool:
        """Whether loss and gradient are numbers; with loss scaling a gradient may overflow once in a while. Where
        nothing counts, such as answers that were all cut short, there is no loss, and nothing is learnt."""
        loss = step.tallies["loss"]
        said = step.loss if loss.count else float(loss.sum)
        figures = [said] if self.accelerator.scaler else [said, step.grad_norm]
        return bool(torch.tensor(figures).isfinite().all())


def order(
    train: Train,
    objective: Objective,
    sequences: Sequence[Tokens],
    cutoff: int,
    processes: tuple[int, int] = (0, 1),
) -> Order:
    """Which examples each step sees, of one process of so many."""
    together = np.array(lengths(sequences)).reshape(-1, objective.rendered).sum(1).tolist()
    return Order(train, together, *processes, cutoff, objective.repeats, sources(sequences)[:: objective.rendered])


def sequences_of(examples: Sequence[int], objective: Objective) -> list[int]:
    """The numbers of the sequences that examples have."""
    size = objective.side_by_side
    return [example * size + n for example in examples for n in range(size)]


def sizes(sequences: Sequence[Tokens], layout: Layout, objective: Objective) -> list[int]:
    """How many tokens each example brings into a batch of these sequences."""
    lengths = np.array([len(tokens.ids) for tokens in sequences])
    if layout is share:
        lengths -= np.array(alike(branches(sequences), objective.side_by_side))
    return lengths.reshape(-1, objective.side_by_side).sum(1).tolist()


def in_parts(lengths: dict[int, int], count: int) -> list[list[int]]:
    """Examples of these lengths in at most so many parts of like size."""
    parts: list[list[int]] = [[] for _ in range(count)]
    for example in sorted(lengths, key=lengths.__getitem__, reverse=True) if count > 1 else lengths:
        min(parts, key=lambda part: sum(lengths[one] for one in part)).append(example)
    return [part for part in parts if part]


def alike(borrowed: Sequence[int], together: int) -> list[int]:
    """What each sequence borrows, and what those lend that others of another example borrow from: wherever a family is
    cut apart, its beginning is needed again, and is no weight of one of them."""
    made = list(borrowed)
    for at in range(1, len(borrowed)):
        lender = at - 1
        while borrowed[lender]:
            lender -= 1
        if borrowed[at] and at // together != lender // together:
            made[lender] = borrowed[at]
    return made
