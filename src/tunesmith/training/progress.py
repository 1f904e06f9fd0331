"""What a person sees while a run goes on: a bar on a terminal, plain lines elsewhere; both on stderr."""

from __future__ import annotations

import sys
import time
from contextlib import suppress

from .loop import Step


class Progress:
    """Shows how far a run is, and says what happens beside it."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.bar = None
        self.began = time.perf_counter()
        self.first = self.tokens = 0

    def say(self, text: str) -> None:
        """One line of what was done, skipped, cut or chosen. A run does not end because its log cannot be written."""
        if self.quiet:
            return
        with suppress(OSError):
            if self.bar:
                self.bar.console.print(text, markup=False, highlight=False)
            else:
                sys.stderr.write(f"{text}\n")
                sys.stderr.flush()

    def begin(self, step: int, total: int) -> None:
        self.began, self.first, self.tokens, self.total = time.perf_counter(), step, 0, total
        if self.quiet or not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        words = "loss {task.fields[loss]:.4f}  {task.fields[speed]:.0f} tokens/s"
        columns = BarColumn(), MofNCompleteColumn(), TextColumn(words), TimeRemainingColumn()
        self.bar = Bar(*columns, console=Console(stderr=True))
        self.bar.start()
        self.task = self.bar.add_task("", total=total, completed=step, loss=float("nan"), speed=0.0)

    def step(self, step: Step, line: bool) -> None:
        """A step is done; with `line` it is one that is logged."""
        self.tokens += step.tokens
        if self.bar:
            self.bar.update(self.task, completed=step.number, loss=step.loss, speed=self.speed)
        elif line:
            done, left = step.number - self.first, self.total - step.number
            remaining = self.seconds / done * left
            self.say(
                f"step {step.number}/{self.total}  loss {step.loss:.4f}  lr {step.learning_rate:.2e}"
                f"  {self.speed:.0f} tokens/s  {remaining:.0f} s left"
            )

    def end(self) -> None:
        if self.bar:
            self.bar.stop()
            self.bar = None

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.began

    @property
    def speed(self) -> float:
        """Tokens a second since the beginning, padding aside."""
        return self.tokens / max(self.seconds, 1e-9)
