"""How this process uses its machine: as many threads as there are real cores, memory that is used again, and products
by the library that is quicker here."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil
import torch
from torch import Tensor

if TYPE_CHECKING:
    from accelerate import Accelerator

    from .run import Train

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
LARGEST = 2**25  # what it takes for the latter at most


def settle_in() -> None:
    """Choose threads, unless OMP_NUM_THREADS does, and keep freed memory.

    A step frees and takes the same large tensors again: each time afresh from the system they cost a page fault for
    every 4 kB, up to a sixth of a step's time on a CPU. On a GPU no attention is left to cuDNN, which plans it anew for
    every length: rows that are packed have hardly one twice, and a third of a step's time went into plans.
    """
    torch.set_num_threads(threads())
    torch.backends.cuda.enable_cudnn_sdp(False)
    if sys.platform == "linux" and not torch.cuda.is_available():
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc alone has it
        if mallopt is not None:
            mallopt(MMAP_THRESHOLD, LARGEST)
            mallopt(TRIM_THRESHOLD, 2**31 - 1)


def threads() -> int:
    """Threads that a run of this process computes with."""
    return torch.get_num_threads() if "OMP_NUM_THREADS" in os.environ else cores()


def cores() -> int:
    """Real cores that this process may run on."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(here, psutil.cpu_count(logical=False) or here))


def accelerator(train: Train) -> Accelerator:
    """The device of a run, and the numbers that it computes with. A run before it in this process may have had others,
    which accelerate keeps for all that come after."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    precision = "bf16" if train.bf16 else "fp16" if train.fp16 else "no"
    if AcceleratorState._shared_state.get("_mixed_precision", precision) != precision:
        AcceleratorState._reset_state()
    return Accelerator(mixed_precision=precision)


def to_ask(model: Any) -> Any:
    """A model that is asked and does not learn: without chance, and on the GPU if there is one. One of which a part is
    there already, as weights in few bits are, was put where it belongs as it was read."""
    if torch.cuda.is_available() and all(weight.device.type == "cpu" for weight in model.parameters()):
        model.to("cuda")
    return model.eval()


STEERING = (
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "ONEDNN_MAX_CPU_ISA",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "CUBLAS_WORKSPACE_CONFIG",
    "NVIDIA_TF32_OVERRIDE",
)
"""What may be set in the environment to have products rounded another way."""


def facts(device: torch.device) -> dict[str, Any]:
    """What the last bits of a result depend on here, besides versions."""
    return {
        "processor": processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        **{name: os.environ[name] for name in STEERING if name in os.environ},
    }


def processor() -> str:
    """The processor's name, which Linux alone keeps from `platform`."""
    try:
        told = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        told = []
    names = (line.partition(":")[2].strip() for line in told if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def product(a: Tensor, b: Tensor) -> Tensor:
    """`a @ b`, [M, K] and [K, N], laid out in memory either way round.

    Chosen by what the processor and the shapes are, not by a race: runs repeat to the bit. oneDNN is a little less
    exact than MKL, which torch takes for `mm` (4e-7 and 3e-7 of a product's length).
    """
    exact = a.dtype == b.dtype == torch.float32 and a.device.type == "cpu"
    if exact and not torch.compiler.is_compiling() and a.numel() and b.numel() and onednn(len(a), *b.shape):
        return torch.ops.mkldnn._linear_pointwise(a, b.T, None, "none", [], "")
    return torch.mm(a, b)


def onednn(rows: int, inner: int, columns: int) -> bool:
    """Whether [rows, inner] @ [inner, columns] in float32 goes to oneDNN, by the door that torch.compile uses as well.

    With AVX-512 it is a tenth to a fifth quicker than MKL. On AMD's processors without, up to twice where there are
    many more columns than are summed up, and up to four times where there are few of them and many rows, as in LoRA.
    """
    kind = instructions()
    if kind == "AMD AVX2":
        return columns >= max(1.5 * inner, 192) or (columns <= 8 and rows * inner >= 2**18)
    return kind.endswith("AVX512")


@cache
def instructions() -> str:
    """What the processor is, as far as it matters to products; empty where oneDNN cannot be had."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return ""
    maker = "AMD" if "AMD" in processor() else ""
    return f"{maker} {torch.backends.cpu.get_cpu_capability()}".strip()


class Memory(NamedTuple):
    """Main memory, in bytes."""

    total: int
    free: int


def memory() -> Memory:
    """What this process may have: the machine's memory, or a container's share of it, where that is less."""
    told = psutil.virtual_memory()
    total, free = int(told.total), int(told.available)
    for most, used in limits():
        total, free = min(total, most), min(free, max(0, most - used))
    return Memory(total, free)


GROUPS = Path("/sys/fs/cgroup")
"""Where Linux says how much the processes of a control group may have together."""
FILES = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))
"""A group's limit and what it holds, as the second version of control groups has them, and the first."""


def limits() -> Iterator[tuple[int, int]]:
    """The limit of each group that this process is in, and what it holds but for files that could be read again."""
    for group in groups():
        for most, used in FILES:
            with suppress(OSError, ValueError):  # not there, or `max`
                limit, holds = int((group / most).read_text()), int((group / used).read_text())
                told = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
                yield limit, holds - int(told.get("total_inactive_file", told.get("inactive_file", 0)))


def groups() -> Iterator[Path]:
    """The groups that this process is in, with those above them. A container may see itself as the topmost."""
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, kinds, path = line.split(":", 2)
            if not kinds or "memory" in kinds.split(","):
                top = GROUPS / "memory" if kinds else GROUPS
                own = top / path.lstrip("/")
                yield from (one for one in (own, *own.parents) if one.is_relative_to(top))


class Peak:
    """The most memory that a run holds at once, from when this is made."""

    def __init__(self) -> None:
        self.before = peak_memory_mb()
        if torch.cuda.is_initialized():  # else nothing has been held there
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def read(self, device: torch.device) -> tuple[float, bool]:
        """MB of a GPU, where one computes, else of the process since it began; and whether that is this run's own.

        A process never tells a lower peak than it once had, and what an earlier run left in pieces adds a little to it:
        only one that has clearly risen is of this run.
        """
        if device.type == "cuda":
            return torch.cuda.max_memory_reserved(device) / 2**20, True
        peak = peak_memory_mb()
        return peak, peak > RISEN * self.before


RISEN = 1.05


def peak_memory_mb() -> float:
    """The most memory that this process held at once."""
    info = psutil.Process().memory_info()
    if hasattr(info, "peak_wset"):  # Windows
        return info.peak_wset / 2**20
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def random_state() -> dict[str, Tensor]:
    """Where torch's random numbers stand, by device."""
    state = {"cpu": torch.get_rng_state()}
    return state | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def set_random_state(state: dict[str, Tensor]) -> None:
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
