"""What is found out about a method before it is compared: how long a step takes, and at which rate it learns best.

All of it is taken off the method's budget, and said.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from ..config.load import load
from ..migrate import RENAMED
from ..run import Run
from ..runs import RunFolder
from .budget import Spent
from .contest import RATE, Begin, Contest, Heat, Say, carry_out
from .figures import Row, judged, row
from .short import PACE, alone, figure, judging, lighten, pace

SHARE = 0.1
"""Of a budget, what each short run of a sweep may use."""
APART = 3.0
"""By how much each learning rate of a sweep is above the one before."""


@dataclass(frozen=True)
class Found:
    """What short runs say of the long ones."""

    words: tuple[str, ...] = ()
    note: str = ""
    spent: Spent = Spent()
    failed: str = ""


def compared(contest: Contest, say: Say, begin: Begin, at_once: int = 1) -> list[Row]:
    """Run a comparison, so many runs at once; a row a method, the best first."""
    entrants = contest.heats
    with ThreadPoolExecutor(at_once) as pool:
        searched = list(pool.map(lambda heats: Search(contest, heats[0], say, begin).found(), entrants))
        asked = [
            (heat.having(found.words, note=found.note), found.failed)
            for heats, found in zip(entrants, searched, strict=True)
            for heat in heats
        ]
        failures = list(pool.map(lambda one: one[1] or carry_out(contest.recipe, one[0], say, begin), asked))
    rows, seeds = [], len(contest.seeds)
    for n, found in enumerate(searched):
        mine = slice(n * seeds, (n + 1) * seeds)
        heats = [heat for heat, _ in asked[mine]]
        made = replace(row(heats, failures[mine]), searched=found.spent)
        rows.append(replace(made, note="; ".join(filter(None, (made.note, ended_early(contest, heats[0], made))))))
    return judged(rows)


def ended_early(contest: Contest, heat: Heat, made: Row) -> str:
    """What to say where a clock stopped a run before its learning rate had come to its end."""
    most = load(Run, contest.recipe, heat.words, renamed=RENAMED).value.train.max_steps
    if made.steps is None or most <= made.steps or not contest.budget or contest.budget.kind != "seconds":
        return ""
    return f"the time was up after {made.steps} of {most} steps"


class Search:
    """The short runs of one method."""

    def __init__(self, contest: Contest, heat: Heat, say: Say, begin: Begin) -> None:
        self.contest, self.heat, self.say, self.begin = contest, heat, say, begin
        self.run = load(Run, contest.recipe, heat.words, renamed=RENAMED).value
        self.spent = Spent()
        self.price = 1.0
        """What a step takes of the budget."""

    def found(self) -> Found:
        """How long the method may go on, and at which rate."""
        budget = self.contest.budget
        if budget is None:
            return Found()
        sweeps = self.contest.sweep > 1 and not self.heat.entrant.says(RATE)
        failed = self.measure() if budget.kind == "seconds" or (sweeps and budget.kind == "tokens") else ""
        if failed:
            return Found(spent=self.spent, failed=failed)
        words, note = self.swept() if sweeps else ([], "")
        left = budget.amount - budget.of(self.spent)
        if sweeps and not words:
            return Found(spent=self.spent, failed=note)
        if left < self.price:
            used = f"short runs took {budget.word(budget.of(self.spent))} of {budget}"
            return Found(spent=self.spent, failed=f"--budget: {used}, and no step is left; name a larger one")
        if self.spent.steps:
            used = f"short runs took {budget.word(budget.of(self.spent))} of {budget}"
            note = "; ".join(filter(None, (note, used)))
        return Found((*words, *budget.words(left, self.price)), note, self.spent)

    def measure(self) -> str:
        """Find out what a step takes of the budget; the reason why not, where that fails."""
        assert self.contest.budget
        kind, most = self.contest.budget.kind, self.contest.budget.amount
        limit = [f"train.max_seconds={SHARE * most:.3f}"] if kind == "seconds" else []
        folder, failed = self.carried("pace", [*alone(PACE), *limit])
        self.price = pace(folder, kind) if not failed else 1.0
        return failed

    def swept(self) -> tuple[list[str], str]:
        """The word that sets the best of several learning rates, and what was found; no word if all fail."""
        assert self.contest.budget
        of = self.contest.budget.amount / self.price
        steps = max(1, round(SHARE * of))
        results: list[tuple[float, float]] = []
        tried = said = ""
        before = self.spent
        for rate in rates(self.run.train.learning_rate, self.contest.sweep):
            words = [*judging(self.run, steps, of), f"{RATE}={rate:g}"]
            folder, failed = self.carried(f"rate-{rate:g}", words)
            tried = tried or failed
            if not failed:
                results.append((figure(folder), rate))
        if not results:
            return [], tried
        best = min(results)[1]
        took = self.contest.budget.of(self.spent) - self.contest.budget.of(before)
        self.price = took / max(1, self.spent.steps - before.steps)
        said = ", ".join(f"{rate:g} {loss:.4g}" for loss, rate in sorted(results, key=lambda one: one[1]))
        note = f"learning rate {best:g}, the best of {said} (loss on validation rows after {steps} steps)"
        return [f"{RATE}={best:g}"], note + (f"; a rate failed: {tried}" if tried else "")

    def carried(self, name: str, words: Sequence[str]) -> tuple[RunFolder, str]:
        """Carry out a short run; its folder, and why it failed if it did."""
        heat = self.heat.having(words, f"{self.heat.entrant.name}-{name}")
        folder = RunFolder(heat.folder)
        failed = carry_out(self.contest.recipe, heat, self.say, self.begin, short=True)
        if (heat.folder / "run.json").is_file():
            self.spent += Spent.of(folder)
            lighten(folder)
        return folder, failed


def rates(middle: float, count: int) -> list[float]:
    """So many learning rates around one, each as many times the one before."""
    return [float(f"{middle * APART ** (n - (count - 1) / 2):.3g}") for n in range(count)]
