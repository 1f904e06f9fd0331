"""A comparison as runs: which there are, and each carried out in a process of its own.

A process of its own, since a peak of memory is a process's; and since what fails, or is killed, is then one row of the
table and not the end of it.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

from ..config.load import load
from ..errors import RecipeError
from ..migrate import RENAMED
from ..run import Run
from ..runs import RunFolder


@dataclass(frozen=True)
class Entrant:
    """A method, with what is said of it, as one wrote it: `lora`, or `lora r=16 train.learning_rate=1e-3`."""

    said: str

    @property
    def words(self) -> list[str]:
        """The same as a recipe's words."""
        name, *more = self.said.split()
        return [f"method={name}", *(word if "." in word.partition("=")[0] else f"method.{word}" for word in more)]

    @property
    def name(self) -> str:
        """A name for its folders."""
        return re.sub(r"[^\w.-]+", "-", self.said).strip("-")


@dataclass(frozen=True)
class Heat:
    """One run of a comparison."""

    entrant: Entrant
    seed: int
    words: tuple[str, ...]
    folder: Path
    note: str
    """What was changed for this method."""


def heats(
    recipe: Path, words: Sequence[str], entrants: Sequence[Entrant], seeds: Sequence[int], out: Path
) -> list[Heat]:
    """Every run: each method once with each seed. Raises RecipeError for a recipe that cannot be, before any is run."""
    if len({entrant.name for entrant in entrants}) < len(entrants):
        raise RecipeError("--methods: the same method is named twice")
    found = []
    for entrant in entrants:
        run = load(Run, recipe, [*words, *entrant.words], renamed=RENAMED).value
        rate, note = suited(run, entrant)
        for seed in seeds:
            folder = out / f"{entrant.name}-{seed}"
            own = [*words, *entrant.words, *rate, f"train.seed={seed}", f"output={folder}"]
            found.append(Heat(entrant, seed, tuple(own), folder, note))
    return found


def suited(run: Run, entrant: Entrant) -> tuple[list[str], str]:
    """The word that sets a learning rate at which a method learns, where the recipe's is one of another method."""
    low, high = run.method.suits
    rate = run.train.learning_rate
    if low <= rate <= high or any(word.startswith("train.learning_rate=") for word in entrant.words):
        return [], ""
    middle = float(f"{sqrt(low * high):.1g}")
    return [f"train.learning_rate={middle:g}"], f"learning rate {middle:g}: {rate:g} is none for {run.method.name}"


def carry_out(recipe: Path, heat: Heat, say: Callable[[str], None]) -> str:
    """Run one, or go on with it; the reason why not, where it fails. One that has finished is not run again."""
    if (heat.folder / "run.json").is_file():
        opened = RunFolder(heat.folder)
        same = opened.recipe().value == load(Run, recipe, heat.words, renamed=RENAMED).value
        if not same:
            raise RecipeError(f"{heat.folder}: is of another recipe; name another --out, or remove it")
        if opened.status == "finished":
            say(f"{heat.entrant.said}, seed {heat.seed}: was run before")
            return ""
        words = ["--resume", str(heat.folder)]
    else:
        words = [str(recipe), *heat.words]
    say(f"{heat.entrant.said}, seed {heat.seed}")
    done = subprocess.run([sys.executable, "-m", "tunesmith", "train", *words], capture_output=True, text=True)
    if not done.returncode:
        return ""
    said = [line for line in done.stderr.strip().splitlines() if line.startswith("tunesmith: ")]
    return said[-1].removeprefix("tunesmith: ") if said else f"ended with status {done.returncode}"
