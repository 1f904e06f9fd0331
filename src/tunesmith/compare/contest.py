"""A comparison as runs: which there are, and each carried out in a process of its own.

A process of its own, since a peak of memory is a process's; and since what fails, or is killed, is then one row of the
table and not the end of it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from math import sqrt
from pathlib import Path

from ..config.load import load
from ..errors import Interrupted, RecipeError, Refusal, Stopped
from ..migrate import RENAMED
from ..plan.advise import advise, circumstances, counted
from ..plan.known import parameters
from ..run import Run
from ..runs import RunFolder
from .budget import Budget
from .short import anew

Say = Callable[[str], None]
Begin = Callable[[Sequence[str]], str]
"""Trains by the words of `tunesmith train`; the reason why not, where it fails."""
LONGEST = 80
"""Letters of a folder's name, of which a file system takes 255."""
KEPT = "stopped; what has run is kept, and the same command goes on from there"


@dataclass(frozen=True)
class Entrant:
    """A method, with what is said of it, as one wrote it: `lora`, or `lora r=16 train.learning_rate=1e-3`."""

    said: str

    @property
    def words(self) -> list[str]:
        """The same as a recipe's words: a key that is none of a recipe's own is the method's."""
        name, *more = apart(self.said, " ")
        own = {field.name for field in fields(Run)}
        return [f"method={name}", *(word if re.split("[.=]", word)[0] in own else f"method.{word}" for word in more)]

    @property
    def name(self) -> str:
        """A name for its folders."""
        plain = re.sub(r"[^\w.-]+", "-", self.said).strip("-")
        if len(plain) <= LONGEST and (plain == self.said or not re.search(r"[\[{]", self.said)):
            return plain
        return f"{plain[: LONGEST - 9]}-{hashlib.sha256(self.said.encode()).hexdigest()[:8]}"

    def says(self, key: str) -> bool:
        return any(word.startswith(f"{key}=") for word in self.words)


def apart(text: str, mark: str) -> list[str]:
    """The pieces of a text between marks, those in brackets, braces and quotes not counted; empty ones left out."""
    pieces, inside, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        inside += 0 if quote else (letter in "[{(") - (letter in "]})")
        if letter == mark and not inside and not quote:
            pieces.append("")
        else:
            pieces[-1] += letter
    return [piece for piece in map(str.strip, pieces) if piece]


@dataclass(frozen=True)
class Heat:
    """One run of a comparison."""

    entrant: Entrant
    seed: int
    words: tuple[str, ...]
    folder: Path
    note: str
    """What was changed for this method."""

    @property
    def label(self) -> str:
        """What it is called while it runs: the method, and its seed or what is tried."""
        rest = self.folder.name.removeprefix(self.entrant.name).strip("-")
        return f"{self.entrant.said}, {'seed ' if rest.isdigit() else ''}{rest}"

    def having(self, words: Sequence[str], name: str = "", note: str = "") -> Heat:
        """The same with other words; under another name it is another run."""
        folder = self.folder.with_name(name) if name else self.folder
        moved = (f"output={folder}",) if name else ()
        note = "; ".join(filter(None, (self.note, note)))
        return replace(self, words=(*self.words, *words, *moved), folder=folder, note=note)


@dataclass(frozen=True)
class Contest:
    """What is compared, and how."""

    recipe: Path
    words: tuple[str, ...]
    entrants: tuple[Entrant, ...]
    seeds: tuple[int, ...]
    out: Path
    budget: Budget | None = None
    """What each may use; the recipe says how long each goes on unless it is given."""
    sweep: int = 0
    """Learning rates that are tried for each first, out of its budget."""
    retention: bool | None = None
    """Whether what is left of general skills is measured too, where a model writes; else as the recipe says."""

    @property
    def heats(self) -> list[list[Heat]]:
        """Every run: each method once with each seed. Raises RecipeError for a recipe that cannot be, before any is
        run."""
        if len({entrant.name for entrant in self.entrants}) < len(self.entrants):
            raise RecipeError("--methods: the same method is named twice")
        if self.sweep and not self.budget:
            raise RecipeError("--sweep: its short runs are taken off a budget; name one, such as --budget 400steps")
        if self.sweep == 1:
            raise RecipeError("--sweep: one learning rate is no choice; name 2 or more")
        found, own, rows = [], self.own, {}
        for entrant in self.entrants:
            run = self.run(entrant)
            if self.budget and self.budget.kind == "tokens" and run.objective.targets == "prompts":
                raise RecipeError(
                    f"--budget: {run.objective.name} writes its answers itself, whose tokens nobody knows before; name"
                    " steps or time, such as 400steps or 10m"
                )
            rate, note = [], ""
            if not entrant.says(RATE):
                if (data := repr(run.data)) not in rows:  # most have the same
                    rows[data] = counted(run)
                rate, note = suited(run, rows[data], run.method.name == own)
            words = [*self.words, *self.asking(run), *entrant.words, *rate]
            found.append([self.heat(entrant, seed, words, note) for seed in self.seeds])
        return found

    def heat(self, entrant: Entrant, seed: int, words: list[str], note: str) -> Heat:
        folder = self.out / f"{entrant.name}-{seed}"
        return Heat(entrant, seed, (*words, f"train.seed={seed}", f"output={folder}"), folder, note)

    def run(self, entrant: Entrant) -> Run:
        """The recipe as a method's words change it."""
        return load(Run, self.recipe, [*self.words, *entrant.words], renamed=RENAMED).value

    @property
    def own(self) -> str:
        """The method that the recipe itself names, whose rate its learning rate is."""
        try:
            return load(Run, self.recipe, self.words, renamed=RENAMED).value.method.name
        except RecipeError:  # what it lacks each entrant may bring
            return ""

    def asking(self, run: Run) -> list[str]:
        """The word by which general skills are asked of a model, or not; of one that does not write nothing can be."""
        asked = self.retention is not None and (run.objective.writes or not self.retention)
        return [f"eval.retention={str(self.retention).lower()}"] if asked else []

    @property
    def unasked(self) -> str:
        """Which methods were asked nothing of general skills though they were to be, and why."""
        found = [(entrant.said, self.run(entrant).objective) for entrant in self.entrants] if self.retention else []
        silent = {said: aim.name for said, aim in found if not aim.writes}
        names, aims = ", ".join(silent), " and ".join(dict.fromkeys(silent.values()))
        return f"retained: not asked of {names}: {aims} makes models that do not write answers" if silent else ""


RATE = "train.learning_rate"
SMALLER = ("pairs", "liked", "prompts")
"""What is learnt at rates below those at which a method was seen to learn answers."""


def suited(run: Run, rows: int | None, own: bool) -> tuple[list[str], str]:
    """The word that sets the advisor's learning rate for a method, where the recipe's is not one for it.

    A rate that was chosen for the recipe's `own` method stays where the advisor, or what the method was seen to learn
    at, has nothing against it; that of another method where neither has.
    """
    (low, high), rate = run.method.suits, run.train.learning_rate
    facts = circumstances(run, parameters(run.model.path), rows)
    said = next((one for one in advise(run, {}, facts) if one.key == RATE), None)
    learns = low <= rate <= high or run.objective.targets in SMALLER
    usual = learns if said is None else not said.conflict
    if (learns and usual) or (own and (learns or usual)):
        return [], ""
    wise = float(said.value) if said else float(f"{sqrt(low * high):.1g}")
    source = f" (advisor: {said.rule})" if said else ""
    return [f"{RATE}={wise:g}"], f"learning rate {wise:g}{source}: {rate:g} is none for {run.method.name}"


def carry_out(recipe: Path, heat: Heat, say: Say, begin: Begin, short: bool = False) -> str:
    """Run one, or go on with it; the reason why not, where it fails. One that has finished is not run again, nor a
    short one that failed: the long ones follow from what it took."""
    if short:
        anew(RunFolder(heat.folder))
    if (heat.folder / "run.json").is_file():
        opened = RunFolder(heat.folder)
        same = opened.recipe().value == load(Run, recipe, heat.words, renamed=RENAMED).value
        if not same:
            raise RecipeError(f"{heat.folder}: is of another recipe; name another --out, or remove it")
        if opened.status == "finished":
            say(f"{heat.label}: was run before")
            return ""
        if short and opened.status != "running":
            say(f"{heat.label}: failed before")
            return opened.facts["reason"]
        words = ["--resume", str(heat.folder)]
    else:
        words = [str(recipe), *heat.words]
    say(heat.label)
    return begin(words)


def here(words: Sequence[str]) -> str:
    """Train in this process, where only a figure is wanted: nothing is imported anew."""
    from ..training.train import resume, train

    recipe, *more = words
    try:
        if recipe == "--resume":
            resume(Path(more[0]), quiet=True)
        else:
            loaded = load(Run, Path(recipe), more, renamed=RENAMED)
            train(loaded.value, origins=loaded.origins, quiet=True)
    except (Stopped, Interrupted) as stopped:
        raise type(stopped)(KEPT) from None
    except Refusal as error:
        return str(error)
    return ""
