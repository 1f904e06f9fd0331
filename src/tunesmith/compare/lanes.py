"""Runs in processes of their own, several at once, each with its share of the machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from queue import SimpleQueue
from threading import RLock
from types import FrameType
from typing import Any

from ..errors import Interrupted, RecipeError, Stopped
from ..training.signals import WATCHED
from .contest import KEPT


class Lanes:
    """So many runs at once: each on its share of the cores and, of several GPUs, on one of its own.

    Within it a signal is handed on to them: the first time they finish their step and save, the second time they end
    at once. None is begun after it.
    """

    def __init__(self, count: int = 1) -> None:
        import torch

        from ..machine import cores

        if count > cores():
            raise RecipeError(f"--parallel: each run needs a core, and there are {cores()} (got {count})")
        self.free: SimpleQueue[Mapping[str, str]] = SimpleQueue()
        for place in shares(count, cores(), torch.cuda.device_count(), os.environ):
            self.free.put(place)
        self.running: set[subprocess.Popen[str]] = set()
        self.stopped, self.door = False, RLock()
        self.before: dict[int, Any] = {}

    def __enter__(self) -> Lanes:
        asked = [number for number in WATCHED if signal.getsignal(number) is not signal.SIG_IGN]  # as nohup has it
        self.before = {number: signal.signal(number, self.heard) for number in asked}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def heard(self, number: int, frame: FrameType | None) -> None:
        with self.door:
            self.stopped = True
            for one in self.running if sys.platform != "win32" else ():  # there Ctrl-C reaches them by itself
                one.terminate()
            if self.running:  # what they come to is waited for
                return
        raise Stopped(KEPT)

    def begin(self, words: Sequence[str]) -> str:
        """Train by the words of `tunesmith train`, as soon as there is room; the reason why not, where it fails."""
        place = self.free.get()
        try:
            return self.in_a_process(words, place)
        finally:
            self.free.put(place)

    def in_a_process(self, words: Sequence[str], place: Mapping[str, str]) -> str:
        """Train in a process of its own, and in a session of its own, so that Ctrl-C reaches it once."""
        command, pipe = [sys.executable, "-m", "tunesmith", "train", *words], subprocess.PIPE
        with self.door:
            if self.stopped:
                raise Stopped(KEPT)
            run = subprocess.Popen(
                command, stdout=pipe, stderr=pipe, text=True, env={**os.environ, **place}, start_new_session=True
            )
            self.running.add(run)
        try:
            _, told = run.communicate()
        finally:
            with self.door:
                self.running.discard(run)
        if not run.returncode:
            return ""
        if self.stopped or run.returncode in (Stopped.code, Interrupted.code):  # also by `runs stop`
            self.stopped = True
            raise Stopped(KEPT)
        said = [line for line in told.strip().splitlines() if line.startswith("tunesmith: ")]
        return said[-1].removeprefix("tunesmith: ") if said else f"ended with status {run.returncode}"


def shares(count: int, cores: int, gpus: int, environment: Mapping[str, str]) -> list[dict[str, str]]:
    """What each of several runs finds in its environment. One run alone has all that there is; what was chosen from
    without, threads or GPUs, stays chosen."""
    if count == 1:
        return [{}]
    own = environment.get("CUDA_VISIBLE_DEVICES", "")
    names = own.split(",") if own else [str(n) for n in range(gpus)]
    threads = environment.get("OMP_NUM_THREADS", str(cores // count))
    placed = [{"CUDA_VISIBLE_DEVICES": names[n % len(names)]} if gpus > 1 else {} for n in range(count)]
    return [{"OMP_NUM_THREADS": threads, **one} for one in placed]
