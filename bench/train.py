"""Training on a CPU: Tunesmith beside TRL on the same rows and weights, and beside what the machine can do at most.

    python bench/train.py [--quick] [--data alpaca.json] [--json rows.json]

Two workers at a time take steps in turn, so that both meet the same machine; every figure is a median over such
rounds. TRL runs in an environment of its own, which is made once. A step is the whole of it: forward, backward, the
cut gradient, the changed weights. The first step of each side is not timed, and its losses must agree.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import venv
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from material import LONGEST, choose, common, matrices, weights
from worker import HERE, THREADS, Step, Trainee, Worker, pin, say

TRL = ["torch==2.13.0", "trl==1.16.*", "peft", "transformers==5.23.*"]
QUIET = 1.5
"""Above this load nothing is judged that is measured in time."""
ENOUGH = 5
"""Rounds from which on times are judged."""
LORA = ["method=lora", "method.r=8", "train.learning_rate=2e-4"]
FULL = ["method=full", "train.learning_rate=2e-5"]
EPOCH = 8
"""Steps in an epoch of freeze tuning."""
REVIEW = "Is this movie review positive or negative? Answer with one word.\n\n{text}"


@dataclass
class Row:
    """One line of the result."""

    name: str
    value: float
    goal: float | None = None
    holds: bool | None = None
    unit: str = "times"
    note: str = ""


@dataclass(frozen=True)
class Goals:
    """What a comparison is judged by; what has no goal only informs."""

    speed: float | None = None
    """Our tokens in a second over TRL's, by either clock."""
    peak: float | None = None
    """Our peak of memory over TRL's, at most."""
    loss: float | None = None
    """Difference of the losses at most; the steps of both sides are then the same rows."""
    share: float | None = None
    """Of what the processors can multiply."""


@dataclass
class Bench:
    """What all the comparisons share."""

    rounds: int
    folder: Path
    trl: Path
    """Python of TRL's environment."""
    model: str
    sequences: list[dict[str, list]]
    batch: int
    """Sequences in a step."""
    unjudged: str
    """Why times are not judged, if they are not."""
    full_size: bool
    """Whether batches are as large as the goals mean them to be."""

    def ours(self, *words: str) -> Worker:
        job = {"do": "train", "words": [*common(self.batch), "train.max_steps=1000000", *self.data, *words]}
        return Worker("ours_side.py", Path(sys.executable), job, self.folder / "ours.log")

    def theirs(self, **job: Any) -> Worker:
        facts = {"model": self.model, "sequences": str(self.folder / "sequences.json"), "max_length": LONGEST}
        defaults = {"batch": self.batch, "packing": False, "lora": True, "learning_rate": 2e-4}
        return Worker("trl_side.py", self.trl, facts | defaults | job, self.folder / "trl.log")

    @property
    def data(self) -> list[str]:
        return [f"data.path={self.folder / 'rows.json'}", "data.format=alpaca"]

    def steps(self, value) -> list[int]:
        """A count over the sequences of each of our steps."""
        counts = [value(sequence) for sequence in self.sequences]
        return [sum(counts[at : at + self.batch]) for at in range(0, len(counts), self.batch)]

    @property
    def tokens(self) -> list[int]:
        return self.steps(lambda sequence: len(sequence["ids"]))

    @property
    def targets(self) -> list[int]:
        return self.steps(lambda sequence: sum(sequence["learn"][1:]))

    def timed(self, name: str, ratios: list[float], goal: float | None, unit: str = "times", note: str = "") -> Row:
        """A row for the median of some ratios, at least as large as its goal, if times are judged at all."""
        value = median(ratios)
        holds = None if goal is None or self.unjudged else value >= goal
        notes = [note, f"{min(ratios):.3g} to {max(ratios):.3g} in {len(ratios)} rounds"]
        notes += [self.unjudged] if goal is not None else []
        return Row(name, value, goal, holds, unit, "; ".join(part for part in notes if part))


# --- comparisons ------------------------------------------------------------------------------------------------------


def compare(bench: Bench, name: str, ours: Worker, theirs: Worker, goals: Goals) -> list[Row]:
    """Steps of both sides in turn, in workers that end with it."""
    with ours, theirs, Worker("gemm.py", Path(sys.executable), None, bench.folder / "gemm.log") as gemm:
        left, right = Trainee(ours, bench.tokens), Trainee(theirs, bench.tokens if goals.loss else ())
        shapes, rates = matrices(Path(bench.model)), []
        for number in range(bench.rounds + 1):
            say(f"{name}: round {number} of {bench.rounds}" + " (not timed)" * (number == 0))
            for trainee in (left, right) if number % 2 else (right, left):
                trainee.step()
                if trainee is left and goals.share:
                    sizes = sorted({(left.steps[-1].tokens, *shape) for shape in shapes})
                    rates.append(gemm.ask(json.dumps(sizes))["rate"])
    rows = speeds(bench, name, left.steps[1:], right.steps[1:], goals.speed)
    peaks = [max(step.peak for step in trainee.steps) for trainee in (left, right)]
    share, goal = peaks[0] / peaks[1], goals.peak
    rows += [
        Row(f"peak RSS {name}", share, goal, share <= goal if goal and bench.full_size else None),
        Row(f"peak RSS {name}: ours", peaks[0], unit="MB"),
        Row(f"peak RSS {name}: TRL", peaks[1], unit="MB"),
    ]
    if goals.loss:
        apart = [abs(a.loss - b.loss) for a, b in zip(left.steps, right.steps, strict=True)]
        note = f"{left.steps[0].loss:.5f} and {right.steps[0].loss:.5f}; {max(apart):.2g} at most in all steps"
        rows.append(Row(f"loss of the first step, {name}", apart[0], goals.loss, apart[0] <= goals.loss, "", note))
    if goals.share:
        rows += shares(bench, left.steps[1:], rates[1:], goals.share)
    return rows


def speeds(bench: Bench, name: str, left: list[Step], right: list[Step], goal: float | None) -> list[Row]:
    rows = []
    for clock in ("wall", "CPU"):
        pairs = [(a.speed[clock], b.speed[clock]) for a, b in zip(left, right, strict=True)]
        unit = "tokens/s" if clock == "wall" else "tokens/CPU-s"
        rows += [
            bench.timed(f"{name}, {clock}", [a / b for a, b in pairs], goal),
            bench.timed(f"{name}: ours, {clock}", [a for a, _ in pairs], None, unit),
            bench.timed(f"{name}: TRL, {clock}", [b for _, b in pairs], None, unit),
        ]
    steps = [*left, *right]
    foreign = sum(step.others for step in steps) / sum(step.wall for step in steps) / THREADS
    rows += [
        Row(f"{name}: processors taken by others", foreign, unit="share"),
        bench.timed(f"{name}: ours, a step", [step.wall for step in left], None, "s"),
        bench.timed(f"{name}: TRL, a step", [step.wall for step in right], None, "s"),
    ]
    return rows


def shares(bench: Bench, steps: list[Step], rates: list[float], goal: float) -> list[Row]:
    """How much of what the processors can multiply was spent on what a LoRA step cannot do without.

    Forward and the gradient of the inputs (4 a weight and token), the head at targets alone, and the adapters (6).
    """
    blocks, head = weights(Path(bench.model))
    layers = sum(rows * columns for rows, columns in blocks)
    adapters = sum(8 * (rows + columns) for rows, columns in blocks)
    counts = list(zip(bench.tokens, bench.targets, strict=True))[1 : len(steps) + 1]
    useful = [(4 * layers + 6 * adapters) * tokens + 4 * head * targets for tokens, targets in counts]
    found = [work / step.wall / rate for work, step, rate in zip(useful, steps, rates, strict=True)]
    note = "over the best of the model's own products, as large as a step"
    return [
        bench.timed("share of the GEMM peak, sft lora", found, goal, "", note),
        bench.timed("GEMM peak", [rate / 1e9 for rate in rates], None, "GFLOP/s"),
    ]


def freeze(bench: Bench) -> list[Row]:
    """Freeze tuning of the last 2 blocks on short answers: how much faster a second epoch is than the first."""
    data = ["data.path=demo/movie-reviews", "data.format=template", f"data.format.prompt={REVIEW}"]
    rows = EPOCH * bench.batch
    words = [*common(bench.batch), *data, f"data.max_samples={rows}", "method=freeze", "method.num_layers=2"]
    job = {"do": "train", "words": [*words, "train.num_train_epochs=3"]}
    ratios: dict[str, list[float]] = {"wall": [], "cpu": []}
    with Worker("ours_side.py", Path(sys.executable), job, bench.folder / "ours.log") as worker:
        for number in range(bench.rounds + 1):
            if number:
                worker.tell("again")
            epochs = [[worker.ask("step") for _ in range(EPOCH)] for _ in range(2)]
            for clock, found in ratios.items():
                first, second = (sum(step[clock] for step in epoch) for epoch in epochs)
                found += [first / second] if number else []
                say(f"freeze: run {number}, {clock}: epochs of {first:.2f} and {second:.2f} s")
    name, note = "freeze (last 2 of 30 blocks), second epoch over first", f"{rows} film reviews, one-word answers"
    return [
        bench.timed(f"{name}, wall", ratios["wall"], 4.0, note=note),
        bench.timed(f"{name}, CPU", ratios["cpu"], None),
    ]


# --- the result -------------------------------------------------------------------------------------------------------


def environment(folder: Path) -> Path:
    """The Python of an environment that has TRL; made if it is not there, or is for another version."""
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    mark, wanted = folder / "made-of.txt", "\n".join(TRL)
    if mark.exists() and mark.read_text() == wanted:
        return python
    say(f"making an environment for TRL in {folder}")
    venv.create(folder, with_pip=True, clear=True)
    constraints = ["-c", str(HERE.parent / "constraints.txt")]
    subprocess.run([str(python), "-m", "pip", "install", "-q", *constraints, *TRL], check=True)
    mark.write_text(wanted)
    return python


def measure(bench: Bench) -> list[Row]:
    """Every comparison, each with fresh workers: a peak of memory is that of its own steps."""
    goals = Goals(speed=5.0, peak=0.25, loss=1e-3, share=0.8)
    rows = compare(bench, "sft lora over TRL default", bench.ours(*LORA), bench.theirs(), goals)
    packing = bench.theirs(batch=bench.batch // 2, packing=True)
    rows += compare(bench, "sft lora over TRL packing", bench.ours(*LORA), packing, Goals(speed=3.5))
    full, theirs = bench.ours(*FULL), bench.theirs(lora=False, learning_rate=2e-5)
    rows += compare(bench, "sft full over TRL default", full, theirs, Goals(speed=3.5, peak=0.5, loss=1e-3))
    return rows + freeze(bench)


def table(rows: list[Row]) -> str:
    words = {True: "yes", False: "NO", None: ""}
    lines = [("", "value", "unit", "goal", "holds", "")]
    for row in rows:
        goal = "" if row.goal is None else f"{row.goal:g}"
        lines.append((row.name, f"{row.value:.4g}", row.unit, goal, words[row.holds], row.note))
    widths = [max(len(line[at]) for line in lines) for at in range(5)] + [0]
    padded = ([cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines)
    return "\n".join("  ".join(cells).rstrip() for cells in padded)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round of small batches: that all runs, not how fast")
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--data", type=Path, help="rows of the alpaca kind; made of film reviews unless given")
    parser.add_argument("--rounds", type=int, default=ENOUGH, help=f"timed steps of each side ({ENOUGH})")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parser.add_argument("--venv", type=Path, default=cache / "tunesmith-bench" / "trl", help="TRL's environment")
    asked = parser.parse_args()
    load = os.getloadavg()[0]
    rounds, batch = (1, 4) if asked.quick else (asked.rounds, 8)
    unjudged = f"not judged: the load was {load:.2f} before" if load > QUIET else ""
    if rounds < ENOUGH:
        unjudged = f"not judged: {rounds} of {ENOUGH} rounds"
    say(f"load {load:.2f}; {pin()}; times are {unjudged or 'judged'}")
    with TemporaryDirectory() as name:
        trl, folder = environment(asked.venv), Path(name)
        model, sequences, what = choose(asked.data, batch, rounds, folder)
        rows = measure(Bench(rounds, folder, trl, model, sequences, batch, unjudged, full_size=not asked.quick))
    rows.insert(0, Row("load before", load, unit="", note=f"{what}; batches of {batch}, fp32"))
    sys.stdout.write(table(rows) + "\n")
    if asked.json:
        asked.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
