"""How this process uses its machine: as many threads as there are real cores, memory that is used again, and products
by the library that is quicker here."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache

import psutil
import torch
from torch import Tensor

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


def product(a: Tensor, b: Tensor) -> Tensor:
    """`a @ b`, [M, K] and [K, N], laid out in memory either way round.

    With AVX-512, oneDNN is a tenth to a fifth quicker in float32 than MKL, which torch takes for `mm`, if a little less
    exact (4e-7 and 3e-7 of a product's length). Chosen by what the processor is, not by a race: runs repeat to the bit.
    """
    exact = a.dtype == b.dtype == torch.float32 and a.device.type == "cpu"
    if exact and not torch.compiler.is_compiling() and a.numel() and b.numel() and onednn():
        return torch.ops.mkldnn._linear_pointwise(a, b.T, None, "none", [], "")
    return torch.mm(a, b)


@cache
def onednn() -> bool:
    """Whether products in float32 go to oneDNN, by the door that torch.compile uses as well."""
    quicker = torch.backends.cpu.get_cpu_capability() == "AVX512" and torch.backends.mkldnn.is_available()
    return quicker and hasattr(torch.ops.mkldnn, "_linear_pointwise")
