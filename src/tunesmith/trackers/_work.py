"""What the process of a tracker does: open it, pass on what is new, close it."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from .base import About, grouped, tracker


class Told:
    """How far a tracker was told of each kind of line, so that a run that goes on tells nothing twice.

    The file is replaced, but not forced onto the disk with every line: where a power cut spoils it, some is told twice.
    """

    def __init__(self, file: Path) -> None:
        self.file, self.steps = file, dict[str, int]()
        with suppress(FileNotFoundError, ValueError):
            self.steps = json.loads(file.read_text(encoding="utf-8"))

    def new(self, line: dict[str, Any]) -> bool:
        return line["step"] > self.steps.get(kind(line), -1)

    def keep(self, line: dict[str, Any]) -> None:
        self.steps[kind(line)] = line["step"]
        self.file.parent.mkdir(exist_ok=True)
        beside = self.file.with_name(f".{self.file.name}.{os.getpid()}.tmp")
        beside.write_text(json.dumps(self.steps), encoding="utf-8")
        beside.replace(self.file)


def kind(line: dict[str, Any]) -> str:
    """What distinguishes a line of metrics from another of the same step: the first of its figures."""
    return next(name for name in line if name != "step")


def work(messages: Iterator[dict[str, Any]]) -> None:
    """Take in the messages of a run: what it is, lines of metrics, how it ended."""
    warnings.simplefilter("ignore")
    begin = next(messages)
    folder = Path(begin["folder"])
    opened = tracker[begin["name"]](**begin["options"]).open(
        About(begin["id"], begin["run"], folder, begin["settings"])
    )
    told, ending = Told(folder / "trackers" / f"{begin['name']}.json"), "died"
    for message in messages:
        if "ending" in message:
            ending = message["ending"]
        elif told.new(message):
            figures = {grouped(name): value for name, value in message.items() if name != "step"}
            opened.log(message["step"], figures)
            told.keep(message)
    opened.close(ending)
