"""The steps of a run and what happens between them: log, measure, save, stop."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from ..errors import Stopped
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
    window: dict[str, Tally] = field(default_factory=dict)
    """What was measured since the last line of metrics."""

    @property
    def speed(self) -> float:
        """Real tokens a second."""
        return self.tokens / self.seconds if self.seconds else 0.0

    def add(self, step: Step, seconds: float) -> None:
        self.step, self.seconds, self.tokens = step.number, self.seconds + seconds, self.tokens + step.tokens
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
        for step in self.loop.fit(taken.step, self.callbacks.call):
            taken.add(step, time.perf_counter() - began)
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

    def restore(self) -> Taken:
        """Where the newest whole checkpoint stands, or the beginning."""
        place = checkpoint.newest(self.checkpoints, self.progress.say)
        if place is None:
            self.folder.rewind(0)
            return Taken()
        manifest = checkpoint.load(place, self.loop, self.facts)
        taken = Taken(int(manifest["step"]), float(manifest["seconds"]), int(manifest["tokens"]))
        self.folder.rewind(taken.step)
        self.progress.say(f"going on after step {taken.step}")
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
        facts = self.facts | {"seconds": taken.seconds, "tokens": taken.tokens}
        checkpoint.save(self.checkpoints, self.loop, taken.step, facts, self.loop.train.save_total_limit)
        self.callbacks.call("on_save")


def due(strategy: str, number: int, every: int, epoch: int) -> bool:
    """Whether something is to be done after this step."""
    return strategy != "no" and number % (every if strategy == "steps" else epoch) == 0


def going_on(folder: RunFolder) -> str:
    return f"tunesmith train --resume {folder.path}"
