"""How this process uses its machine: as many threads as there are real cores, and memory that is used again."""

from __future__ import annotations

import ctypes
import os
import sys

import psutil
import torch

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
LARGEST = 2**25  # what it takes for the latter at most


def settle_in() -> None:
    """Choose threads, unless OMP_NUM_THREADS does, and keep freed memory.

    A step frees and takes the same large tensors again: each time afresh from the system they cost a page fault for
    every 4 kB, up to a sixth of a step's time on a CPU.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(cores())
    if sys.platform == "linux" and not torch.cuda.is_available():
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc alone has it
        if mallopt is not None:
            mallopt(MMAP_THRESHOLD, LARGEST)
            mallopt(TRIM_THRESHOLD, 2**31 - 1)


def cores() -> int:
    """Real cores that this process may run on."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(here, psutil.cpu_count(logical=False) or here))
