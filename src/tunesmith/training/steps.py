"""The steps of a run and what happens between them: log, measure, save, stop."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from ..errors import BadEnvironment, Diverged, Interrupted, Refusal, Stopped
from ..evaluate.evaluate import Examiner
from ..objectives.base import Tally
from ..runs import RunFolder
from . import checkpoint
from .callbacks import Callbacks
from .hardware import Hardware
from .loop import Loop, Step
from .progress import Progress
from .signals import Signals
from .trouble import Spikes, rows
from .watched import Watched


@dataclass
class Taken:
    """How far a run is: what its steps took, over every session that it was resumed in."""

    step: int = 0
    seconds: float = 0.0
    tokens: int = 0
    skipped: int = 0
    """Steps that were not taken because they were no numbers."""
    spikes: int = 0
    """Steps whose loss stood far above what was usual."""
    window: dict[str, Tally] = field(default_factory=dict)
    """What was measured since the last line of metrics."""

    @property
    def speed(self) -> float:
        """Real tokens a second."""
        return self.tokens / self.seconds if self.seconds else 0.0

    def add(self, step: Step, seconds: float) -> None:
        self.step, self.seconds, self.tokens = step.number, self.seconds + seconds, self.tokens + step.tokens
        if step.skipped:
            self.skipped += 1
            return
        for name, tally in step.tallies.items():
            self.window[name] = self.window[name] + tally if name in self.window else tally


@dataclass
class Between:
    """Everything that goes on around the steps of one run."""

    loop: Loop
    folder: RunFolder
    callbacks: Callbacks
    watch: Examiner
    """Measures the loss on held-out rows while training."""
    progress: Progress
    watched: Watched
    facts: checkpoint.Facts
    """What must not have changed when a checkpoint is loaded."""
    made_by: checkpoint.Facts = field(default_factory=dict)
    """Code and versions, which a checkpoint names; where they have changed, the run's passport tells."""
    spikes: Spikes = field(default_factory=Spikes)
    unwritten: int = 0
    """Lines of metrics that could not be written."""

    @cached_property
    def hardware(self) -> Hardware:
        return Hardware(self.folder.path, self.loop.policy.device)

    @cached_property
    def writer(self) -> checkpoint.Writer:
        keep = self.loop.train.save_total_limit
        return checkpoint.Writer(self.folder.path / "checkpoints", keep, self.progress.say)

    def take_steps(self, signals: Signals) -> Taken:
        """Take the steps that are left, from the newest whole checkpoint if there is one.

        Raises Stopped, saved, after a signal; Diverged before a step that would spoil the weights.
        """
        taken = self.restore()
        self.progress.begin(taken.step, self.loop.order.total)
        self.watched.begin()
        self.hardware.look()
        self.callbacks.begin(self.loop, self.watch.material.renderer.tokenizer, taken.step)
        signals.stepping = True
        began, cuts = time.perf_counter(), self.loop.cuts
        steps = self.loop.fit(taken.step, self.callbacks.call)
        while not self.late(taken) and (step := self.next(steps, taken)):
            taken.add(step, time.perf_counter() - began)
            if self.loop.cuts > cuts:
                cuts = self.loop.cuts
                self.progress.say(
                    f"step {step.number}: out of memory; from here on batches are cut {cuts} times as small"
                )
            self.judge(step, taken)
            self.after(step, taken, signals)
            if signals.stop:
                self.stopped(step)
            if self.callbacks.asked("training_stop"):
                self.progress.say(f"a callback stopped the training after step {step.number}")
                break
            began = time.perf_counter()
        self.writer.wait()
        signals.stepping = False
        self.loop.train.optim.finish(self.loop.optimizer)
        self.callbacks.call("on_train_end")
        return taken

    def judge(self, step: Step, taken: Taken) -> None:
        """Say what is wrong with a step, if anything. Raises Diverged, saved, when too many were not taken."""
        if step.skipped:
            self.progress.say(f"step {step.number} was not taken ({taken.skipped} so far): {step.skipped}")
            if taken.skipped > self.loop.train.max_skipped_steps:
                self.save(taken)
                self.writer.wait()
                raise Diverged(
                    f"{taken.skipped} steps were not taken, more than train.max_skipped_steps allows; the last one:"
                    f" {step.skipped}"
                )
        elif step.tallies["loss"].count and self.spikes.seen(step.loss):
            taken.spikes += 1
            self.progress.say(
                f"step {step.number}: a spike, loss {step.loss:.4g} where {self.spikes.usual:.4g} is usual"
                f" ({taken.spikes} so far), with the rows {rows(self.loop, step.number - 1)}"
            )

    def stopped(self, step: Step) -> None:
        """Raise Stopped, with what is saved."""
        self.writer.wait()
        if self.writer.saved == step.number:
            raise Stopped(f"stopped after step {step.number}, and saved; go on with: {going_on(self.folder)}")
        last = f"the last checkpoint is of step {self.writer.saved}" if self.writer.saved else "there is no checkpoint"
        raise BadEnvironment(f"stopped after step {step.number}, which could not be saved; {last}")

    def next(self, steps: Iterator[Step], taken: Taken) -> Step | None:
        """Take a step. If it cannot be taken, be it that its loss is no number or that a judge, a reward or a sampler
        refuses, the weights as they stand before it are saved."""
        try:
            return next(steps, None)
        except Refusal as why:
            self.save_before(why, taken)
            raise

    def save_before(self, why: Refusal, taken: Taken) -> None:
        """Save what was learnt before a step that could not be taken, unless it is saved already, or was begun."""
        if self.loop.begun or isinstance(why, Stopped | Interrupted):
            return
        sound = all(bool(weight.isfinite().all()) for weight in self.loop.weights.values())
        self.writer.wait()
        if sound and taken.step not in (0, self.writer.saved) and self.loop.train.save_strategy != "no":
            self.save(taken)
            self.writer.wait()

    def restore(self) -> Taken:
        """Where the newest whole checkpoint stands, or the beginning."""
        place = checkpoint.newest(self.writer.folder, self.progress.say)
        if place is None:
            self.folder.rewind(0)
            return Taken()
        manifest = checkpoint.load(place, self.loop, self.facts)
        step, tokens, skipped, spikes = (int(manifest[name]) for name in ("step", "tokens", "skipped", "spikes"))
        taken = Taken(step, float(manifest["seconds"]), tokens, skipped, spikes)
        self.writer.saved, self.loop.cuts = step, int(manifest["cuts"])
        self.folder.rewind(taken.step)
        self.progress.say(
            "; ".join([f"going on after step {taken.step}", *checkpoint.changes(manifest, self.facts).values()])
        )
        return taken

    def after(self, step: Step, taken: Taken, signals: Signals) -> None:
        """What is due after a step: tell the callbacks, log, measure, save."""
        train, number, late = self.loop.train, step.number, self.late(taken)
        last, epoch = late or number == self.loop.order.total, self.loop.order.epoch_steps
        self.callbacks.at(number, number / epoch)
        self.callbacks.call("on_step_end")
        line = number % train.logging_steps == 0 or last or self.callbacks.asked("log")
        self.progress.step(step, line)
        if line:
            self.log(step, taken)
        measuring = due(train.eval_strategy, number, train.eval_steps, epoch) or self.callbacks.asked("evaluate")
        if measuring and not signals.stop:
            with signals.aside(), train.optim.settled(self.loop.optimizer):
                self.measure(number)
        wanted = due(train.save_strategy, number, train.save_steps, epoch) or (last and train.save_strategy != "no")
        if wanted or signals.stop or self.callbacks.asked("save"):
            self.save(taken)
        if number % epoch == 0 or last:
            self.callbacks.call("on_epoch_end")
        if late and number < self.loop.order.total:
            up = f"train.max_seconds: {taken.seconds:.3g} s of training are up after step {number} of"
            self.progress.say(f"{up} {self.loop.order.total}; the learning rate stood at {step.learning_rate:.3g}")

    def late(self, taken: Taken) -> bool:
        """Whether training has taken as long as it may."""
        most = self.loop.train.max_seconds
        return most is not None and taken.seconds >= most

    def log(self, step: Step, taken: Taken) -> None:
        """Write a line of metrics: means over the steps since the last one, of what there was."""
        figures = {name: tally.mean() for name, tally in taken.window.items() if tally.count}
        figures |= {"grad_norm": step.grad_norm, "learning_rate": step.learning_rate}
        figures["epoch"] = step.number / self.loop.order.epoch_steps
        taken.window = {}
        taken_in = {"tokens": taken.tokens, "tokens_per_second": taken.speed}
        self.write({"step": step.number, **figures, **taken_in, **self.hardware.look()})
        self.callbacks.log(figures)
        if self.loop.answers:
            self.folder.note(alarms=self.loop.answers.alarms.as_json())

    def write(self, figures: dict[str, float]) -> None:
        """Add a line to the run's metrics. Training does not end for want of it; that is said once."""
        self.watched.log(figures)
        try:
            self.folder.log(figures)
        except OSError as error:
            if not self.unwritten:
                self.progress.say(f"metrics.jsonl cannot be written ({error.strerror}); training goes on without")
            self.unwritten += 1

    def measure(self, number: int) -> None:
        if not self.watch.examples:  # only a callback asks for it then
            self.progress.say(f"step {number}: a callback asks for the loss on held-out rows, and there are none")
            return
        loss = self.watch.loss(self.loop.policy)
        self.write({"step": number, "eval_loss": loss})
        self.progress.say(f"step {number}: loss on {len(self.watch.examples)} held-out rows {loss:.4f}")
        self.callbacks.call("on_evaluate", metrics={"eval_loss": loss})

    def save(self, taken: Taken) -> None:
        facts = (
            self.facts
            | self.made_by
            | {name: getattr(taken, name) for name in ("seconds", "tokens", "skipped", "spikes")}
        )
        facts["cuts"] = self.loop.cuts  # a resumed run rounds as this one does
        self.writer.save(self.loop, taken.step, facts)
        if self.callbacks.callbacks:
            self.writer.wait()  # they expect to find it
        self.callbacks.call("on_save")


def due(strategy: str, number: int, every: int, epoch: int) -> bool:
    """Whether something is to be done after this step."""
    return strategy != "no" and number % (every if strategy == "steps" else epoch) == 0


def going_on(folder: RunFolder) -> str:
    return f"tunesmith train --resume {folder.path}"
