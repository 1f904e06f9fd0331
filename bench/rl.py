"""Learning from one's own answers on a CPU: Tunesmith's sampler beside transformers' generate, its GRPO beside TRL's.

    python bench/rl.py [--quick] [--group 8] [--json rows.json]

Workers take turns, so that all meet the same machine; every figure is a median over such rounds. Both samplers give as
many answers to the same prompts, by the same weights, and an answer ends with its first sentence, so that lengths are
unequal; what counts is tokens of answers, not what is computed beside them. A step of GRPO is the whole of it: answers,
rewards, what the policy made of them, forward, backward and the optimizer, with LoRA on both sides.
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

from material import MODEL, common
from train import ENOUGH, QUIET, Row, environment, table
from worker import THREADS, Worker, busy, pin, say

RATE = 1e-5
PATTERN = "an|in|on"
SPEED = {"rollout": 2.0, "step": 2.5}
"""Goals: how many times as many tokens of answers in a second."""
PEAK = 0.5


@dataclass
class Bench:
    """What both comparisons share."""

    rounds: int
    folder: Path
    trl: Path
    """Python of TRL's environment."""
    prompts: list[str]
    batch: int
    """Prompts of a step."""
    group: int
    length: int
    unjudged: str
    """Why times are not judged, if they are not."""
    full_size: bool

    def rollout(self) -> list[Row]:
        """As many answers to as many prompts as a step of four batches has."""
        job = {"prompts": self.prompts[: 4 * self.batch], "group": self.group, "length": self.length}
        with ExitStack() as stack:
            workers = {}
            for side, sampler in (("ours", "exact"), ("half", "half")):
                mine = job | {"model": MODEL, "sampler": sampler}
                worker = Worker("ours_rl.py", Path(sys.executable), mine, self.folder / f"{side}.log")
                workers[side] = stack.enter_context(worker)
                told = worker.answer()
            theirs = Worker("trl_rl.py", self.trl, job | {"do": "generate"} | told, self.folder / "hf.log")
            workers["generate"] = stack.enter_context(theirs)
            steps = self.turns(workers, str)
        speeds = {
            side: [(one["tokens"] / one["wall"], one["tokens"] / one["cpu"]) for one in found]
            for side, found in steps.items()
        }
        return self.rows("rollout", speeds, steps)

    def step(self) -> list[Row]:
        file = self.folder / "asked.jsonl"
        lines = [json.dumps({"prompt": text, "answer": "yes"}) + "\n" for text in self.prompts]
        file.write_text("".join(lines), encoding="utf-8")
        words = [*common(self.batch), f"data.path={file}", "objective=grpo", "method=lora", "method.r=8"]
        words += [f"train.learning_rate={RATE}", f"train.max_steps={self.rounds + 2}", "data.on_lint=warn"]
        words += [f"objective.num_generations={self.group}", f"objective.max_completion_length={self.length}"]
        words += ["rewards.0.name=regex", f"rewards.0.pattern={PATTERN}"]
        job = {"do": "grpo", "prompts": self.prompts, "batch": self.batch, "group": self.group, "length": self.length}
        job |= {"pattern": PATTERN, "learning_rate": RATE, "model": self.weights()}
        with ExitStack() as stack:
            workers = {}
            for side, sampler in (("ours", "exact"), ("half", "half")):
                mine = {"do": "online", "words": [*words, f"objective.sampler={sampler}"]}
                worker = Worker("ours_side.py", Path(sys.executable), mine, self.folder / f"{side}.log")
                workers[side] = stack.enter_context(worker)
            workers["TRL"] = stack.enter_context(Worker("trl_rl.py", self.trl, job, self.folder / "trl.log"))
            steps = self.turns(workers, lambda _: "step")
        answers = self.batch * self.group
        speeds = {
            side: [tuple(one["length"] * answers / one[clock] for clock in ("wall", "cpu")) for one in steps[side]]
            for side in steps
        }
        rows = self.rows("step", speeds, steps)
        lengths = {side: [one["length"] for one in steps[side]] for side in steps}
        return rows + [self.timed(f"step: tokens an answer, {side}", found, "") for side, found in lengths.items()]

    def weights(self) -> str:
        from tunesmith.model.hub import locate

        return str(locate(MODEL))

    def turns(self, workers: dict[str, Worker], line) -> dict[str, list[dict[str, Any]]]:
        """What each worker's steps took, the first, which is not timed, left out."""
        steps: dict[str, list[dict[str, Any]]] = {side: [] for side in workers}
        for number in range(self.rounds + 1):
            say(f"round {number} of {self.rounds}" + " (not timed)" * (number == 0))
            for side in list(workers)[:: -1 if number % 2 else 1]:
                before = busy()
                told = workers[side].ask(line(number))
                others = busy() - before - told["cpu"]
                amount = f"{told.get('tokens', told.get('length')):.6g} tokens"
                say(f"  {side:8} {told['wall']:7.2f} s, {told['cpu']:7.2f} CPU-s (others {others:.2f}), {amount}")
                if number:
                    steps[side].append(told)
        return steps

    def rows(self, name: str, speeds: dict[str, list[tuple[float, ...]]], steps: dict[str, list[dict]]) -> list[Row]:
        other, made = list(speeds)[-1], []
        for at, clock in enumerate(("wall", "CPU")):
            for side in list(speeds)[:-1]:
                ratios = [a[at] / b[at] for a, b in zip(speeds[side], speeds[other], strict=True)]
                goal = SPEED[name] if side == "ours" else None
                made.append(self.timed(f"{name}: {side} over {other}, {clock}", ratios, "times", goal))
            unit = "tokens/s" if clock == "wall" else "tokens/CPU-s"
            made += [self.timed(f"{name}: {side}, {clock}", [one[at] for one in speeds[side]], unit) for side in speeds]
        peaks = {side: max(one["peak"] for one in steps[side]) for side in steps}
        share = peaks["ours"] / peaks[other]
        goal = PEAK if name == "step" else None
        made.append(
            Row(f"{name}: peak RSS", share, goal, share <= goal if goal and self.full_size else None, "of theirs")
        )
        return made + [Row(f"{name}: peak RSS, {side}", peak, unit="MB") for side, peak in peaks.items()]

    def timed(self, name: str, found: Sequence[float], unit: str, goal: float | None = None) -> Row:
        """A row for the median; at least as large as its goal, if times are judged at all."""
        value = median(found)
        note = f"{min(found):.3g} to {max(found):.3g} in {len(found)} rounds"
        holds = None if goal is None or self.unjudged else value >= goal
        return Row(name, value, goal, holds, unit, f"{note}; {self.unjudged}" if goal and self.unjudged else note)


def questions(count: int) -> list[str]:
    """Prompts of unequal length: film reviews, which are to be answered."""
    from tunesmith.model.hub import locate_data

    lines = (locate_data("demo/movie-reviews") / "train.jsonl").read_text(encoding="utf-8").splitlines()
    reviews = [json.loads(line)["text"] for line in random.Random(0).sample(lines, count)]
    return [f"Write a review of a film that is like this one: {text}" for text in reviews]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round of short answers: that all runs, not how fast")
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--only", nargs="+", choices=SPEED, default=list(SPEED), help="these comparisons")
    parser.add_argument("--rounds", type=int, default=ENOUGH, help=f"timed rounds ({ENOUGH})")
    parser.add_argument("--batch", type=int, default=2, help="prompts of a step (2); a rollout has four times as many")
    parser.add_argument("--group", type=int, default=8, help="answers to each prompt (8)")
    parser.add_argument("--length", type=int, default=64, help="longest answer, in tokens (64)")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parser.add_argument("--venv", type=Path, default=cache / "tunesmith-bench" / "trl", help="TRL's environment")
    asked = parser.parse_args()
    load, rounds, batch, length = os.getloadavg()[0], asked.rounds, asked.batch, asked.length
    if asked.quick:
        rounds, batch, length = 1, 1, 12
    unjudged = f"not judged: the load was {load:.2f} before" if load > QUIET else ""
    if rounds < ENOUGH:
        unjudged = f"not judged: {rounds} of {ENOUGH} rounds"
    say(f"load {load:.2f}; {pin()}; times are {unjudged or 'judged'}")
    with TemporaryDirectory() as name:
        trl, prompts = environment(asked.venv), questions(max(4, rounds + 2) * batch)
        bench = Bench(rounds, Path(name), trl, prompts, batch, asked.group, length, unjudged, full_size=not asked.quick)
        rows = [row for one in asked.only for row in getattr(bench, one)()]
    what = f"{MODEL}, groups of {asked.group}, at most {length} tokens, {THREADS} threads, fp32"
    rows.insert(0, Row("load before", load, unit="", note=what))
    sys.stdout.write(table(rows) + "\n")
    if asked.json:
        asked.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
