"""How far plans were right on this machine: kept in the cache, and what the next plan is corrected by."""

from __future__ import annotations

import json
import statistics
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..cache import cache
from ..files import private, write
from .device import COUNTED, Device, read
from .estimate import Plan

KEPT = 200
"""Runs that are remembered."""
LATELY = 15
"""Runs that a correction is the median of."""
BOUNDS = 0.25, 4.0
"""What a correction is at most: what is further off is a fault, not a machine's way."""


def place() -> Path:
    return cache() / "plan" / "runs.json"


def known(device: Device) -> list[dict[str, Any]]:
    """The runs on a device that were planned as plans are now, the oldest first."""
    runs, like = read(place()).get("runs", []), {"device": device.name, "counted": COUNTED}
    return [one for one in runs if like.items() <= one.items()]


def nearest(device: Device, alike: dict[str, str], what: str) -> list[dict[str, Any]]:
    """The runs that tell most of the memory or the time of one like this: of the same model, method and objective; of
    the same model and method; of the same model; or any, if there are three."""
    runs = [one for one in known(device) if one.get(what, {}).get("planned")]
    for keys in (("model", "method", "objective"), ("model", "method"), ("model",)):
        same = [one for one in runs if all(one.get(key) == alike[key] for key in keys)]
        if same:
            return same[-LATELY:]
    return runs[-LATELY:] if len(runs) >= 3 else []


def factor(runs: list[dict[str, Any]], what: str) -> float:
    """How much more, or less, runs took than was planned before any correction."""
    ratios = [one[what]["measured"] / one[what]["planned"] for one in runs]
    low, high = BOUNDS
    return min(high, max(low, statistics.median(ratios))) if ratios else 1.0


def correct(plan: Plan, device: Device, alike: dict[str, str]) -> Plan:
    """A plan as earlier runs on this device have it."""
    runs = {what: nearest(device, alike, what) for what in ("memory", "time")}
    if not any(runs.values()):
        return plan
    by = {what: factor(found, what) for what, found in runs.items()}
    added = plan.peak * (by["memory"] - 1)
    return replace(
        plan,
        memory=plan.memory | {"as runs here have shown": added},
        peak=plan.peak + added,
        step_seconds=plan.step_seconds * by["time"],
        train_seconds=plan.train_seconds * by["time"],
        more_seconds=plan.more_seconds * by["time"],
        cost=None if plan.cost is None else plan.cost * by["time"],
        corrected=by | {"runs": max(map(len, runs.values()))},
    )


def note(plan: Plan, device: Device, alike: dict[str, str], peak: float | None, step: float) -> dict[str, Any]:
    """What was planned and what it came to, in GB and seconds a step; kept for the next plan. Where the run's own peak
    is not known, nothing is of memory."""
    by = plan.corrected or {"memory": 1.0, "time": 1.0}
    said = {} if peak is None else {"memory": (plan.peak, peak, by["memory"])}
    said |= {"time": (plan.step_seconds, step, by["time"])}
    one: dict[str, Any] = {"device": device.name, "counted": COUNTED, **alike}
    shown: dict[str, Any] = {}
    for what, (planned, measured, correction) in said.items():
        one[what] = {"planned": planned / correction, "measured": measured}
        shown[what] = {"planned": planned, "measured": measured, "error": planned / measured - 1 if measured else None}
    runs = [*read(place()).get("runs", []), one][-KEPT:]
    with suppress(OSError):  # a full cache is no reason to lose a run that is done
        private(place().parent)
        write(place(), json.dumps({"runs": runs}, indent=1))
    return shown
