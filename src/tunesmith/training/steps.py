"""The steps of a run and what happens between them: log, measure, save, stop."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..errors import Diverged, Stopped
from ..evaluate.evaluate import Examiner
from ..objectives.base import Tally
from ..runs import RunFolder
from . import checkpoint
from .callbacks import Callbacks
from .loop import Loop, Step
from .progress import Progress
from .signals import Signals


@dataclass
class Taken:
    """How far a run is: what its steps took, over every session that it was resumed in."""

    step: int = 0
    seconds: float = 0.0
    tokens: int = 0
    skipped: int = 0
    """Steps that were not taken because they were no numbers."""
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
    facts: checkpoint.Facts
    """What must not have changed when a checkpoint is loaded."""

    def take_steps(self, signals: Signals) -> Taken:
        """Take the steps that are left, from the newest whole checkpoint if there is one.

        Raises Stopped, saved, after a signal; Diverged before a step that would spoil the weights.
        """
        taken = self.restore()
        self.progress.begin(taken.step, self.loop.order.total)
        self.callbacks.begin(self.loop, self.watch.material.renderer.tokenizer, taken.step)
        signals.stepping = True
        began = time.perf_counter()
        steps = self.loop.fit(taken.step, self.callbacks.call)
        while step := self.next(steps, taken):
            taken.add(step, time.perf_counter() - began)
            if step.skipped:
                self.progress.say(f"step {step.number} was not taken ({taken.skipped} so far): {step.skipped}")
            self.after(step, taken, signals.stop)
            if signals.stop:
                raise Stopped(f"stopped after step {step.number}, and saved; go on with: {going_on(self.folder)}")
            if self.callbacks.asked("training_stop"):
                self.progress.say(f"a callback stopped the training after step {step.number}")
                break
            began = time.perf_counter()
        signals.stepping = False
        self.callbacks.call("on_train_end")
        return taken

    def next(self, steps: Iterator[Step], taken: Taken) -> Step | None:
        """Take a step. If it cannot be taken, the weights as they stand before it are saved."""
        try:
            return next(steps, None)
        except Diverged:
            sound = all(bool(weight.isfinite().all()) for weight in self.loop.weights.values())
            if sound and taken.step and self.loop.train.save_strategy != "no":
                self.save(taken)
            raise

    def restore(self) -> Taken:
        """Where the newest whole checkpoint stands, or the beginning."""
        place = checkpoint.newest(self.checkpoints, self.progress.say)
        if place is None:
            self.folder.rewind(0)
            return Taken()
        manifest = checkpoint.load(place, self.loop, self.facts)
        step, tokens, skipped = (int(manifest[name]) for name in ("step", "tokens", "skipped"))
        taken = Taken(step, float(manifest["seconds"]), tokens, skipped)
        self.folder.rewind(taken.step)
        self.progress.say(
            "; ".join([f"going on after step {taken.step}", *checkpoint.changes(manifest, self.facts).values()])
        )
        return taken

    @property
    def checkpoints(self):
        return self.folder.path / "checkpoints"

    def after(self, step: Step, taken: Taken, stop: bool) -> None:
        """What is due after a step: tell the callbacks, log, measure, save."""
        train, number, last = self.loop.train, step.number, step.number == self.loop.order.total
        epoch = self.loop.order.epoch_steps
        self.callbacks.at(number, number / epoch)
        self.callbacks.call("on_step_end")
        line = number % train.logging_steps == 0 or last or self.callbacks.asked("log")
        self.progress.step(step, line)
        if line:
            self.log(step, taken)
        if due(train.eval_strategy, number, train.eval_steps, epoch) or self.callbacks.asked("evaluate"):
            self.measure(number)
        wanted = due(train.save_strategy, number, train.save_steps, epoch) or (last and train.save_strategy != "no")
        if wanted or stop or self.callbacks.asked("save"):
            self.save(taken)
        if number % epoch == 0 or last:
            self.callbacks.call("on_epoch_end")

    def log(self, step: Step, taken: Taken) -> None:
        """Write a line of metrics: means over the steps since the last one."""
        figures = {name: tally.mean() for name, tally in taken.window.items()}
        figures |= {"grad_norm": step.grad_norm, "learning_rate": step.learning_rate}
        figures["epoch"] = step.number / self.loop.order.epoch_steps
        taken.window = {}
        self.folder.log({"step": step.number, **figures, "tokens": taken.tokens, "tokens_per_second": taken.speed})
        self.callbacks.log(figures)

    def measure(self, number: int) -> None:
        loss = self.watch.loss(self.loop.policy)
        self.folder.log({"step": number, "eval_loss": loss})
        self.progress.say(f"step {number}: loss on {len(self.watch.examples)} held-out rows {loss:.4f}")
        self.callbacks.call("on_evaluate", metrics={"eval_loss": loss})

    def save(self, taken: Taken) -> None:
        facts = self.facts | {name: getattr(taken, name) for name in ("seconds", "tokens", "skipped")}
        checkpoint.save(self.checkpoints, self.loop, taken.step, facts, self.loop.train.save_total_limit)
        self.callbacks.call("on_save")


def due(strategy: str, number: int, every: int, epoch: int) -> bool:
    """Whether something is to be done after this step."""
    return strategy != "no" and number % (every if strategy == "steps" else epoch) == 0


def going_on(folder: RunFolder) -> str:
    return f"tunesmith train --resume {folder.path}"
