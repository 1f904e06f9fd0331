"""One measured step at a time: the same gate stands in the training loop of either side.

A worker waits before each step for a line on stdin: `step` lets one step through, which is answered on stdout with
one line of JSON; anything else, and the end of the lines, ends the training.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import TextIO

from transformers import TrainerCallback


class Left(Exception):
    """No more steps are wanted of this training."""


class Gate(TrainerCallback):
    """Measures from the step's beginning, its batch not yet seen by the model, until the weights are changed."""

    def __init__(self, answers: TextIO) -> None:
        self.answers = answers
        self.asked, self.took = "", {}

    def on_step_begin(self, args, state, control, **kwargs):
        self.asked = sys.stdin.readline().strip()
        if self.asked != "step":
            raise Left
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def on_step_end(self, args, state, control, **kwargs):
        self.took = {"wall": time.perf_counter() - self.wall, "cpu": time.process_time() - self.cpu}

    def on_log(self, args, state, control, logs=None, **kwargs):
        if logs and "loss" in logs:
            answer(self.answers, **self.took, loss=logs["loss"], tokens=logs.get("num_tokens"), peak=peak_mb())


class OnlineGate(Gate):
    """Says how long the answers were that a step learnt from, too."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        length = (logs or {}).get("completion_length", (logs or {}).get("completions/mean_length"))
        if length is not None:
            answer(self.answers, **self.took, length=length, peak=peak_mb())


def own_stdout() -> TextIO:
    """This process's stdout, for answers alone; whatever else is printed goes to stderr."""
    kept = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return kept


def answer(answers: TextIO, **facts) -> None:
    answers.write(json.dumps(facts) + "\n")
    answers.flush()


def peak_mb() -> float:
    """The most memory that this process has held; ru_maxrss would begin with what its parent held."""
    status = Path("/proc/self/status")
    if status.exists():
        [line] = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) / 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
