"""What a tracker is: somebody else's store of metrics, opened for a run, told of steps, and closed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Protocol

from ..config.record import record
from ..config.registry import Registry
from ..errors import BadEnvironment

Figures = Mapping[str, float]
ENDINGS = ("finished", "stopped", "failed", "died")
"""How a run ends; one that died has said nothing."""


@dataclass(frozen=True)
class About:
    """A run, as a tracker may know it."""

    id: str
    """24 hexadecimal digits, the same each time that the run goes on."""
    name: str
    folder: Path
    """The run's folder, where a tracker may keep files."""
    settings: dict[str, Any]
    """The recipe by dotted keys, without paths and secrets."""


class Opened(Protocol):
    """A tracker's run."""

    def log(self, step: int, figures: Figures) -> None:
        """Keep figures of a step."""
        ...

    def close(self, ending: str) -> None:
        """Say how the run ended, and see to it that all is kept."""
        ...


class Told:
    """A run of a package that takes the figures of a step by `log`; each ends in a way of its own."""

    def __init__(self, run: Any) -> None:
        self.run = run

    def log(self, step: int, figures: Figures) -> None:
        self.run.log(dict(figures), step=step)


@record
class Tracker:
    """A store of metrics. What it is opened in is a process of its own."""

    name: ClassVar[str]

    def refuse(self) -> None:
        """Refuse a tracker whose package is not there."""
        spec = find_spec(self.name)
        if spec is None or spec.origin is None:  # a folder of that name, which trackers leave behind, is no package
            raise BadEnvironment(f"train.report_to: {self.name} is not installed; pip install 'tunesmith[{self.name}]'")

    def open(self, about: About) -> Opened:
        """The run in this store: a new one, or the one that was opened under the same id."""
        raise NotImplementedError


tracker: Registry[Tracker] = Registry("tracker", "tunesmith.trackers")


def grouped(name: str) -> str:
    """A figure's name as trackers group it: train/loss, eval/loss."""
    if name.startswith(("machine/", "before/", "after/")):
        return name
    return f"eval/{name.removeprefix('eval_')}" if name.startswith("eval_") else f"train/{name}"
