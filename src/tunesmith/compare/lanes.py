"""Runs in processes of their own, several at once, each with its share of the machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from queue import SimpleQueue

from ..errors import RecipeError


class Lanes:
    """So many runs at once: each on its share of the cores and, of several GPUs, on one of its own."""

    def __init__(self, count: int = 1) -> None:
        import torch

        from ..machine import cores

        if count > cores():
            raise RecipeError(f"--parallel: each run needs a core, and there are {cores()} (got {count})")
        self.free: SimpleQueue[Mapping[str, str]] = SimpleQueue()
        for place in shares(count, cores(), torch.cuda.device_count(), os.environ):
            self.free.put(place)

    def begin(self, words: Sequence[str]) -> str:
        """Train by the words of `tunesmith train`, as soon as there is room; the reason why not, where it fails."""
        place = self.free.get()
        try:
            return in_a_process(words, place)
        finally:
            self.free.put(place)


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


def in_a_process(words: Sequence[str], place: Mapping[str, str]) -> str:
    """Train in a process of its own."""
    command = [sys.executable, "-m", "tunesmith", "train", *words]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **place})
    if not done.returncode:
        return ""
    said = [line for line in done.stderr.strip().splitlines() if line.startswith("tunesmith: ")]
    return said[-1].removeprefix("tunesmith: ") if said else f"ended with status {done.returncode}"
