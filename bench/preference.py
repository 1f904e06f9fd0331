"""Preference training on a CPU: DPO, KTO and reward models by Tunesmith and by TRL, on the same tokens and weights.

    python bench/preference.py [--quick] [--data dpo.json] [--json rows.json]

Workers take steps in turn, so that all meet the same machine; every figure is a median over such rounds. Adapters and
heads begin with the same random numbers on both sides, so that the losses of all steps must agree. What Tunesmith asks
of the reference before the first step is measured too, and added where TRL asks for it in each step.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from pairs import LONG, Rows, long, picked, prepared, short, single, written_on
from train import ENOUGH, QUIET, Row, environment, table
from worker import THREADS, Trainee, Worker, pin, say

RATE = 1e-4
SEED = 42
LORA = ["method=lora", "method.r=8", f"train.learning_rate={RATE}", f"train.seed={SEED}", "data.on_lint=warn"]
APART = 2e-3
"""How far losses may be apart after some steps; rounding grows from step to step."""
PARTS = ("reference", "families")
"""What a worker of ours is asked beside whole steps."""


@dataclass(frozen=True)
class Goals:
    """How many times as fast as TRL's default, by processor time and by the clock; and its share of memory."""

    speed: float
    with_reference: bool = True
    """Whether the reference, asked for once, counts as part of a step."""
    peak: float = 0.3


@dataclass
class Bench:
    """What all the comparisons share."""

    rounds: int
    folder: Path
    trl: Path
    """Python of TRL's environment."""
    unjudged: str
    """Why times are not judged, if they are not."""
    full_size: bool
    """Whether batches are as large as the goals mean them to be."""

    @property
    def steps(self) -> int:
        """Of each side, the first counted, which is not timed."""
        return self.rounds + 1

    def ours(self, rows: Rows, *words: str) -> Worker:
        job = {"do": "train", "words": [*rows.words, *words, f"train.max_steps={self.rounds + 2}"]}
        return Worker("ours_side.py", Path(sys.executable), job, self.folder / "ours.log")

    def part(self, what: str, rows: Rows) -> Worker:
        job = {"do": what, "words": rows.words}
        return Worker("ours_preference.py", Path(sys.executable), job, self.folder / f"{what}.log")

    def theirs(self, kind: str, rows: Rows, size: int, **job: Any) -> Worker:
        facts = {"kind": kind, "model": rows.model, "sequences": str(rows.file), "batch": rows.batch // size}
        facts |= {"max_length": LONG, "learning_rate": RATE, "seed": SEED}
        return Worker("trl_preference.py", self.trl, facts | job, self.folder / "trl.log")

    def timed(self, name: str, found: Sequence[float], goal: float | None = None, unit: str = "times") -> Row:
        """A row for the median; at least as large as its goal, if times are judged at all."""
        value = median(found)
        holds = None if goal is None or self.unjudged else value >= goal
        note = f"{min(found):.3g} to {max(found):.3g} in {len(found)} rounds"
        return Row(name, value, goal, holds, unit, f"{note}; {self.unjudged}" if goal and self.unjudged else note)


def compare(bench: Bench, name: str, rows: Rows, workers: dict[str, Worker], goals: Goals) -> list[Row]:
    """Steps of all workers in turn; `ours` beside `TRL`, and whatever else there is."""
    with ExitStack() as stack:
        trainees = {}
        for side, worker in workers.items():
            known = rows.tokens if side in ("ours", *PARTS) else ()
            trainees[side] = Trainee(stack.enter_context(worker), known)
        for number in range(bench.rounds + 1):
            say(f"{name}: round {number} of {bench.rounds}" + " (not timed)" * (number == 0))
            for trainee in list(trainees.values())[:: -1 if number % 2 else 1]:
                trainee.step()
    made: list[Row] = []
    for clock in ("wall", "cpu"):
        took = {side: [getattr(step, clock) for step in trainee.steps[1:]] for side, trainee in trainees.items()}
        made += ratios(bench, f"{name}, {clock}", took, goals)
    peaks = {side: max(step.peak for step in trainee.steps) for side, trainee in trainees.items()}
    share = peaks["ours"] / peaks["TRL"]
    made.append(Row(f"{name}, peak RSS", share, goals.peak, share <= goals.peak if bench.full_size else None, "of TRL"))
    made += [Row(f"{name}, peak RSS: {side}", peak, unit="MB") for side, peak in peaks.items() if side not in PARTS]
    losses = [(a.loss, b.loss) for a, b in zip(trainees["ours"].steps, trainees["TRL"].steps, strict=True)]
    apart = max(abs(a - b) for a, b in losses)
    both = ", ".join(f"{a:.5f} {b:.5f}" for a, b in losses)
    steps = [step for trainee in trainees.values() for step in trainee.steps[1:]]
    foreign = sum(step.others for step in steps) / sum(step.wall for step in steps) / THREADS
    return [
        *made,
        Row(f"{name}, losses apart", apart, APART, apart <= APART, "", f"ours and TRL: {both}"),
        Row(f"{name}, processors taken by others", foreign, unit="share"),
    ]


def ratios(bench: Bench, name: str, took: dict[str, list[float]], goals: Goals) -> list[Row]:
    """How many times as long as ours the others took, by one clock."""
    ours = took["ours"]
    once = [a + b for a, b in zip(ours, took["reference"], strict=True)] if "reference" in took else None
    judged = once if goals.with_reference and once else ours
    made = []
    for side in (one for one in took if one.startswith("TRL")):
        for times, what in ((ours, ""), (once, ", ours with the reference")):
            if times is not None:
                goal = goals.speed if side == "TRL" and times is judged else None
                found = [theirs / own for theirs, own in zip(took[side], times, strict=True)]
                made.append(bench.timed(f"{name}: {side} over ours{what}", found, goal))
    return made + [bench.timed(f"{name}: {side}, a step", seconds, unit="s") for side, seconds in took.items()]


def families(bench: Bench, name: str, rows: Rows) -> list[Row]:
    """What it saves that the answers of a pair run their prompt once: tokens, and time."""
    once, each = [], []
    with bench.part("families", rows) as worker:
        for number in range(bench.rounds + 1):
            for found in (once, each):
                found.append(worker.ask("step"))
            say(f"{name}: {once[-1]['cpu']:.2f} CPU-s once, {each[-1]['cpu']:.2f} each; round {number}")
    computed = sum(step["computed"] for step in once) / sum(step["tokens"] for step in once)
    apart = max(abs(a["norm"] / b["norm"] - 1) for a, b in zip(once, each, strict=True))
    pairs = {clock: [b[clock] / a[clock] for a, b in zip(once[1:], each[1:], strict=True)] for clock in ("wall", "cpu")}
    return [
        Row(f"{name}, tokens computed", computed, unit="share", note=f"of {sum(one['tokens'] for one in once)} tokens"),
        *(bench.timed(f"{name}, {clock}: each prompt twice over once", found) for clock, found in pairs.items()),
        Row(f"{name}, lengths of gradients apart", apart, 1e-4, apart <= 1e-4, "share"),
    ]


def dpo(bench: Bench, pairs: list[dict], batch: int) -> list[Row]:
    rows = prepared(bench.folder / "dpo", pairs, bench.steps * batch, batch, ["objective=dpo", *LORA], short)
    workers = {"ours": bench.ours(rows), "TRL": bench.theirs("dpo", rows, 2), "reference": bench.part(PARTS[0], rows)}
    return compare(bench, "dpo", rows, workers, Goals(3.0)) + families(bench, "dpo, families", rows)


def long_prompts(bench: Bench, pairs: list[dict], batch: int) -> list[Row]:
    made = picked(2 * bench.steps * batch, random.Random(0))
    rows = prepared(bench.folder / "long", made, bench.steps * batch, batch, ["objective=dpo", *LORA], long)
    workers = {
        "ours": bench.ours(rows),
        "TRL": bench.theirs("dpo", rows, 2),
        "TRL with its reference ahead": bench.theirs("dpo", rows, 2, ahead=True),
        "reference": bench.part(PARTS[0], rows),
    }
    found = compare(bench, "dpo, long prompts", rows, workers, Goals(4.0, with_reference=False))
    return found + families(bench, "long prompts, families", rows)


def kto(bench: Bench, pairs: list[dict], batch: int) -> list[Row]:
    liked, size = single(pairs, random.Random(0)), 2 * batch
    rows = prepared(bench.folder / "kto", liked, bench.steps * size, size, ["objective=kto", *LORA], short)
    workers = {"ours": bench.ours(rows), "TRL": bench.theirs("kto", rows, 1), "reference": bench.part(PARTS[0], rows)}
    return compare(bench, "kto", rows, workers, Goals(2.5))


def reward(bench: Bench, pairs: list[dict], batch: int) -> list[Row]:
    rows = prepared(bench.folder / "reward", pairs, bench.steps * batch, batch, ["objective=reward", *LORA], short)
    return compare(
        bench, "reward", rows, {"ours": bench.ours(rows), "TRL": bench.theirs("reward", rows, 2)}, Goals(2.0)
    )


COMPARISONS = {"dpo": dpo, "long": long_prompts, "kto": kto, "reward": reward}


def measure(bench: Bench, given: list[dict] | None, batch: int, only: Sequence[str]) -> list[Row]:
    """Every comparison, each with fresh workers: a peak of memory is that of its own steps."""
    draw, count = random.Random(0), 8 * batch * bench.steps
    pairs = draw.sample(given, min(len(given), count)) if given else written_on(count // 2, draw)
    return [row for name in only for row in COMPARISONS[name](bench, pairs, batch)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round of small batches: that all runs, not how fast")
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--data", type=Path, help="pairs as JSON: prompt or conversations, chosen, rejected;"
                        " made of film reviews unless given")  # fmt: skip
    parser.add_argument("--only", nargs="+", choices=COMPARISONS, default=list(COMPARISONS), help="these comparisons")
    parser.add_argument("--rounds", type=int, default=ENOUGH, help=f"timed steps of each side ({ENOUGH})")
    parser.add_argument("--batch", type=int, default=4, help="pairs in a step (4)")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parser.add_argument("--venv", type=Path, default=cache / "tunesmith-bench" / "trl", help="TRL's environment")
    asked = parser.parse_args()
    load = os.getloadavg()[0]
    rounds, batch = (1, 1) if asked.quick else (asked.rounds, asked.batch)
    unjudged = f"not judged: the load was {load:.2f} before" if load > QUIET else ""
    if rounds < ENOUGH:
        unjudged = f"not judged: {rounds} of {ENOUGH} rounds"
    say(f"load {load:.2f}; {pin()}; times are {unjudged or 'judged'}")
    with TemporaryDirectory() as name:
        bench = Bench(rounds, Path(name), environment(asked.venv), unjudged, full_size=batch >= 4)
        given = json.loads(asked.data.read_text(encoding="utf-8")) if asked.data else None
        rows = measure(bench, given, batch, asked.only)
    what = f"{asked.data.name if asked.data else 'rows made of film reviews'}; batches of {batch} pairs, fp32"
    rows.insert(0, Row("load before", load, unit="", note=what))
    sys.stdout.write(table(rows) + "\n")
    if asked.json:
        asked.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
