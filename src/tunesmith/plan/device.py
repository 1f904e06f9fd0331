"""What a run is planned for: a GPU of the table, or this processor as a short calibration found it."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..cache import cache
from ..config.registry import did_you_mean
from ..errors import BadEnvironment, RecipeError
from ..files import private, write
from .rehearse import ATTENDING, Count
from .table import table

GB, REACHED = 2**30, 0.45
"""Bytes, and the share of what a maker promises that training reaches (Chowdhery et al. 2022, arXiv:2204.02311, report
46 % for PaLM)."""
LAUNCH = 2.4e-5
"""Seconds until a GPU has been told of an operation, by Python and torch: steps of an H200 with little to compute took
14 to 28 us for each."""
CONTEXT = 0.9
"""GB that CUDA and its libraries take on a GPU."""


@dataclass(frozen=True)
class Device:
    """How large and how quick something is that computes."""

    name: str
    kind: str
    """cpu or gpu."""
    memory: float
    """GB."""
    rates: dict[str, list[tuple[int, float]]]
    """By number format (half, full): flops a second, by the smallest side of the matrices that are multiplied."""
    attention: float
    """Flops a second of attention."""
    bandwidth: float
    """Bytes a second."""
    intake: float
    """Bytes a second of weights, which are in no cache, that products of few tokens take in."""
    call: float
    """Seconds that an operation takes by itself."""
    framework: float
    """GB that are taken before a model is there."""
    link: float
    """Bytes a second to the next device."""
    bf16: bool
    source: str

    def seconds(self, count: Count, half: bool) -> float:
        """How long a piece of work takes. A processor waits for what it multiplies; a GPU multiplies meanwhile, and is
        told what comes next."""
        products, calls = self.products(count, half), count.calls * self.call
        read, moved = count.weights / self.intake + count.read / self.bandwidth, count.moved / self.bandwidth
        return products + read + moved + calls if self.kind == "cpu" else max(max(products, read) + moved, calls)

    def products(self, count: Count, half: bool) -> float:
        """Seconds of additions and multiplications alone."""
        return sum(flops / self.rate(side, half) for side, flops in count.flops.items())

    def rate(self, side: int, half: bool) -> float:
        """Flops a second of products whose smallest side is so long: between what is known, evenly in its logarithm."""
        if side == ATTENDING:
            return self.attention
        known = self.rates["half" if half else "full"]
        if side <= known[0][0]:
            return known[0][1] * side / known[0][0]
        for (low, slow), (high, quick) in zip(known, known[1:], strict=False):
            if side <= high:
                share = math.log(side / low) / math.log(high / low)
                return slow + share * (quick - slow)
        return known[-1][1]


def device(name: str | None) -> Device:
    """The device of that name; this machine's GPU, or its processor, unless one is named."""
    if name is None:
        return here()
    if name.lower() == "cpu":
        return this_cpu()
    said = re.sub(r"[^a-z0-9]+", "-", name.lower()).removeprefix("nvidia-").removeprefix("geforce-")
    if said not in table("devices"):
        raise RecipeError(
            f"--device: '{name}' is not in the table ({did_you_mean(said, table('devices'))}); known are cpu, "
            f"{', '.join(table('devices'))}"
        )
    return listed(said)


def listed(name: str) -> Device:
    """A GPU as its maker describes it, at the share of its speed that training reaches."""
    said = table("devices")[name]
    rates = {
        kind: [(16, said[kind] * 1e12 * 0.05), (256, said[kind] * 1e12 * 0.3), (2048, said[kind] * 1e12 * REACHED)]
        for kind in ("half", "full")
    }
    return Device(
        name=said["name"],
        kind="gpu",
        memory=float(said["memory"]),
        rates=rates,
        attention=said["half"] * 1e12 * 0.3,
        bandwidth=said["bandwidth"] * 1e9 * 0.8,
        intake=said["bandwidth"] * 1e9 * 0.8,
        call=LAUNCH,
        framework=CONTEXT,
        link=said["link"] * 1e9,
        bf16=said.get("bf16", True),
        source=said["source"],
    )


def here() -> Device:
    """The GPU of this machine, by its name in the table, or else its processor."""
    import torch

    if not torch.cuda.is_available():
        return this_cpu()
    return recognised(torch.cuda.get_device_name(0), torch.cuda.get_device_properties(0).total_memory / GB)


def recognised(told: str, memory: float) -> Device:
    """The GPU of the table that a driver calls so, with the memory in GB that it tells of.

    All words of a name must be those of the table, but for its maker, its mount and its memory: an RTX 3060 Ti is no
    RTX 3060. Of those that differ in memory alone the nearest is taken.
    """
    words = set(re.findall("[a-z0-9]+", told.lower())) - BESIDE
    words = {word for word in words if not SIZE.fullmatch(word)}
    known = {name: {word for word in name.split("-") if not SIZE.fullmatch(word)} for name in table("devices")}
    fitting = [name for name, own in known.items() if own <= words and words - own <= MOUNTS]
    if not fitting:
        raise RecipeError(
            f"--device: this machine's GPU ({told}) is not in the table; name the nearest one of it:"
            f" {', '.join(table('devices'))}"
        )
    sizes = {name: (-len(known[name]), abs(table("devices")[name]["memory"] - memory)) for name in fitting}
    return replace(listed(min(fitting, key=lambda name: sizes[name])), memory=memory)


SIZE = re.compile(r"\d+gb")
BESIDE = {"nvidia", "geforce", "tesla", "amd", "instinct", "gpu", "hbm2", "hbm2e", "hbm3", "hbm3e"}
MOUNTS = {"pcie", "sxm", "sxm2", "sxm3", "sxm4", "sxm5", "sxm6", "oam"}
"""How a GPU is built in: one that is slower so has a row of its own in the table."""


# --- this processor ---------------------------------------------------------------------------------------------------

COUNTED = 4
"""Raised where steps are counted, or a processor is measured, in another way: a rate belongs to a count."""


def this_cpu() -> Device:
    """This machine's processor, measured once by a process of its own; what was found is kept in the cache."""
    import torch

    from ..machine import memory, processor, threads

    key = {"processor": processor(), "threads": threads(), "torch": torch.__version__, "counted": COUNTED}
    found = measured(key)
    return Device(
        name=f"{processor()}, {threads()} threads",
        kind="cpu",
        memory=memory().total / GB,
        rates={kind: [(int(side), rate) for side, rate in found[kind]] for kind in ("full", "half")},
        attention=found["attention"],
        bandwidth=found["bandwidth"],
        intake=found["intake"],
        call=found["call"],
        framework=found["framework"],
        link=1e9,
        bf16=True,
        source="measured here",
    )


def measured(key: dict[str, Any]) -> dict[str, Any]:
    file = cache() / "plan" / f"processor-{key['threads']}.json"
    known = read(file)
    if known.get("key") != key:
        done = subprocess.run([sys.executable, "-m", "tunesmith.plan.calibrate"], capture_output=True, text=True)
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["it died"])[-1]
            raise BadEnvironment(f"this processor could not be measured: {said}; name a --device of the table")
        known = {"key": key, **json.loads(done.stdout.splitlines()[-1])}
        private(file.parent)
        write(file, json.dumps(known, indent=1))
    return known


def read(file: Path) -> dict[str, Any]:
    """A JSON file's object; an empty one if there is none that can be read."""
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}
