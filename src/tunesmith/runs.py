"""A run folder: what is in it, and how it is made, read and listed.

recipe.yaml       every effective value, with where it came from
manifest.json     the run's passport: see passport.py
run.json          status, counts of the data, figures
owner.json        the process that runs it now
metrics.jsonl     a line for each logged step
checkpoints/      what `--resume` needs
adapter/ model/   what was learnt, as PEFT or transformers load it
report.html       what a person reads
"""

from __future__ import annotations

import errno
import json
import os
import platform
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .config.load import Loaded, load, to_yaml
from .errors import CheckpointError, RecipeError
from .files import private, remove, write
from .owner import NAME as OWNER
from .owner import hold, owner
from .run import Run

NAME = r"\w[\w.-]*"
"""The name of a run is a name: no path, and nothing that a shell would read."""
PACKAGES = ("tunesmith", "torch", "transformers", "peft", "accelerate", "tokenizers", "safetensors")


@dataclass(frozen=True)
class RunFolder:
    """One run on disk."""

    path: Path

    @property
    def facts(self) -> dict[str, Any]:
        """What run.json says."""
        try:
            return json.loads((self.path / "run.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{self.path}: is no run folder: run.json cannot be read ({error})") from None

    def note(self, **facts: Any) -> None:
        """Add facts to run.json."""
        known = self.facts if (self.path / "run.json").exists() else {}
        write(self.path / "run.json", json.dumps(known | facts, indent=1, ensure_ascii=False))

    @property
    def status(self) -> str:
        """How the run stands: what run.json says, unless a process runs it, or one did and is gone ("died")."""
        said = self.facts.get("status", "")
        return "running" if owner(self.path) else "died" if said == "running" else said

    def recipe(self, words: list[str] | tuple[str, ...] = ()) -> Loaded[Run]:
        """The recipe that the run was made with."""
        if not (self.path / "recipe.yaml").is_file():
            raise CheckpointError(f"{self.path}: is no run folder: it has no recipe.yaml")
        return load(Run, self.path / "recipe.yaml", words)

    @property
    def metrics(self) -> list[dict[str, float]]:
        """The lines of metrics.jsonl that are whole."""
        file = self.path / "metrics.jsonl"
        lines = file.read_text(encoding="utf-8").split("\n")[:-1] if file.exists() else []
        return [json.loads(line) for line in lines]

    def log(self, figures: Mapping[str, float]) -> None:
        """Add a line to metrics.jsonl, whole or not at all: half a line would spoil the next one."""
        line = (json.dumps(figures) + "\n").encode()
        with (self.path / "metrics.jsonl").open("ab", buffering=0) as file:
            end = file.tell()
            if file.write(line) < len(line):  # what was left of a disk
                file.truncate(end)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file.name)

    def rewind(self, step: int) -> None:
        """Forget the metrics of steps after `step`, which will be taken again."""
        kept = [json.dumps(line) + "\n" for line in self.metrics if line["step"] <= step]
        write(self.path / "metrics.jsonl", "".join(kept))


@contextmanager
def claim(run: Run, name: str, say: Callable[[str], None]) -> Iterator[RunFolder]:
    """The folder of a new run, owned within it: `run.output`, which must not hold anything yet, or a free runs/NAME.

    Of two processes that start at once, the second gets another number under runs/; with the same `output` it is
    refused as a mistake of the recipe. A folder that was made here and is empty in the end goes again.
    """
    if run.output is None and not re.fullmatch(NAME, name):
        raise RecipeError(f"name: '{name}' cannot name a run: use letters, digits and . _ -, or set output")
    place = Path("runs") / name if run.output is None else Path(run.output)
    new = run.output is None or not place.exists()
    try:
        if run.output is None:
            place = fresh(place)
        private(place)
    except OSError as error:
        raise RecipeError(f"output: {place} cannot be made: {error.strerror}") from None
    try:
        with hold(place, say, RecipeError):
            if any(part.name != OWNER for part in place.iterdir()):
                raise RecipeError(
                    f"output: {place} holds something already; name another folder,"
                    f" or go on with that run by `tunesmith train --resume {place}`"
                )
            yield RunFolder(place)
    finally:
        if new:
            with suppress(OSError):  # it holds something, as it should
                place.rmdir()


def create(folder: RunFolder, run: Run, origins: Mapping[str, str]) -> None:
    """Begin the folder of a run with its recipe; that of a run that goes on stays as it is."""
    if (folder.path / "run.json").exists():
        return
    write(folder.path / "recipe.yaml", to_yaml(run, origins))
    folder.note(status="running", started=now(), name=folder.path.name)


def fresh(folder: Path) -> Path:
    """Make the folder, or that with the first number behind its name that is free; no two processes make the same."""
    while True:
        place = free(folder)
        with suppress(FileExistsError):  # another process was quicker
            place.mkdir(mode=0o700, parents=True)
            return place


def free(folder: Path) -> Path:
    """The folder, or with the first number behind its name that is free."""
    number, place = 1, folder
    while place.exists() or place.is_symlink():
        number += 1
        place = folder.with_name(f"{folder.name}-{number}")
    return place


def discard(folder: RunFolder) -> int:
    """Remove a run's folder, and nothing that its links lead to; how many bytes its files had."""
    path = folder.path.resolve()
    if folder.path.is_symlink():
        raise CheckpointError(f"{folder.path}: is a link; name the folder that it leads to, {path}")
    marks = ("recipe.yaml", "run.json")
    for mark in marks:
        if not (path / mark).is_file():
            raise CheckpointError(f"{folder.path}: is no run folder: it has no {mark}; nothing was removed")
    with hold(folder.path, lambda _: None):
        freed = sum(file.lstat().st_size for file in path.rglob("*") if file.name != OWNER and not file.is_dir())
        for part in sorted(path.iterdir(), key=lambda part: part.name in marks):  # cut off, it can be done again
            if part.name != OWNER:
                remove(part)
    path.rmdir()
    return freed


def listed(root: Path) -> list[RunFolder]:
    """The runs in a folder, the oldest first."""
    runs = [RunFolder(path.parent) for path in root.glob("*/run.json")]
    return sorted(runs, key=lambda run: run.facts.get("started", ""))


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions(*more: str) -> dict[str, str]:
    """The versions that a result depends on, of packages that are `more` than all runs need too."""
    found = {"python": platform.python_version(), "machine": platform.platform()}
    for package in (*PACKAGES, *filter(None, more)):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
