"""Processes that take one step when they are told to, on two processors, and what their steps were."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
THREADS = 2


@dataclass
class Step:
    """What a worker says of one step."""

    wall: float
    cpu: float
    loss: float
    peak: float
    tokens: int
    others: float
    """Processor seconds that all other processes took meanwhile."""

    @property
    def speed(self) -> dict[str, float]:
        """Real tokens, padding aside, by the clock and by the processors' time."""
        return {"wall": self.tokens / self.wall, "CPU": self.tokens / self.cpu}


class Worker:
    """A process that does one thing for each line it is given, and otherwise waits."""

    def __init__(self, script: str, python: Path, job: dict | None, log: Path) -> None:
        self.script, self.log = script, log
        with log.open("w") as errors:
            self.process = subprocess.Popen(
                [str(python), str(HERE / script)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=os.environ | settled(),
            )
        if job is not None:
            self.tell(json.dumps(job))

    def tell(self, line: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-25:])
            sys.exit(f"{self.script} ended with status {self.process.wait()}:\n{tail}")
        return json.loads(line)

    def ask(self, line: str) -> dict[str, Any]:
        self.tell(line)
        return self.answer()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *raised: object) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        if raised[0]:
            self.process.terminate()
        self.process.wait()


@dataclass
class Trainee:
    """One side's worker, and what its steps were."""

    worker: Worker
    tokens: Sequence[int] = ()
    """Tokens of each step where they are known; TRL counts its own."""
    steps: list[Step] = field(default_factory=list)
    counted: int = 0

    def step(self) -> Step:
        before = busy()
        told = self.worker.ask("step")
        others = max(0.0, busy() - before - told["cpu"])
        counted = told.pop("tokens")
        known = self.tokens[len(self.steps)] if self.tokens else None
        seen = known if counted is None else int(counted) - self.counted
        if seen is None or (known and seen != known):
            sys.exit(f"{self.worker.script}: a step had {seen} tokens where the rows have {known}")
        self.counted += seen
        self.steps.append(Step(tokens=seen, others=others, **told))
        times = f"{told['wall']:7.2f} s, {told['cpu']:7.2f} CPU-s (others {others:.2f})"
        say(f"  {self.worker.script:13} {times}, loss {told['loss']:.4f}, {seen} tokens, peak {told['peak']:.0f} MB")
        return self.steps[-1]


def settled() -> dict[str, str]:
    """The environment of every worker: two threads, no GPU, no network, no warnings of forks."""
    threads = {name: str(THREADS) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    alone = {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "ACCELERATE_USE_CPU": "true",
    }
    return threads | alone | {"TOKENIZERS_PARALLELISM": "false"}


def pin() -> str:
    """Keep this process, and so its workers, on two physical cores."""
    if not hasattr(os, "sched_setaffinity"):
        return f"{THREADS} threads, wherever the system puts them"
    found: dict[str, int] = {}
    for cpu in sorted(os.sched_getaffinity(0)):
        place = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology")
        names = [place / name for name in ("physical_package_id", "core_id")]
        found.setdefault(" ".join(n.read_text().strip() if n.exists() else f"cpu{cpu}" for n in names), cpu)
    cores = set(list(found.values())[:THREADS])
    os.sched_setaffinity(0, cores)
    return f"{THREADS} threads on the processors {', '.join(map(str, sorted(cores)))}"


def busy() -> float:
    """Seconds for which this machine's processors have worked, for whomever; 0 where the system does not say."""
    if not Path("/proc/stat").exists():
        return 0.0
    user, nice, system, _, _, irq, softirq = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
