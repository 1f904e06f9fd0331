"""What `tunesmith plan` says against what runs take here: peak of memory and time of a step.

    python bench/plan.py [--models tiny,smollm2] [--methods full,lora] [--objectives sft,dpo] [--batches 2,8]
                         [--steps 6] [--whole] [--json rows.json]

Each cell is a run in a process of its own, on two processors; the first two steps, in which memory is taken for the
first time, are not timed. Steps differ in their tokens, so that each is held against its own plan, and the middling one
is shown, since a machine that others use as well is slow for moments. All are planned beforehand, by one process, with
what the calibration of this machine says and nothing that was learnt of runs. With --whole each is measured before and
after, asked what it knows of other things, and saved. Run it on a quiet machine: times of a busy one are of no use.
The last column is what the plan would have been off by after runs of all other cells, from which it learns.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

from worker import busy, pin, settled

from tunesmith.start import BEFORE

HERE = Path(__file__).resolve()
NEW = 2
"""Steps that take memory which the process has not had yet: in the first, and once the optimizer's states are there."""
PROMPT = "data.format.prompt=Is this movie review positive or negative? Answer with one word.\\n\\n{text}"
REVIEWS = ["data.path=demo/movie-reviews"]
DATA = {
    "sft": [*REVIEWS, "data.format.name=template", PROMPT, "data.format.answer={label}"],
    "pretrain": ["data.path=demo/movie-reviews", "data.format.name=text"],
    "classify": REVIEWS,
    "dpo": ["data.path=demo/movie-pairs"],
    "orpo": ["data.path=demo/movie-pairs"],
    "reward": ["data.path=demo/movie-pairs"],
}
ONLINE = [*DATA["sft"], "objective.max_completion_length=24", "rewards.0.name=length", "rewards.0.target=12"]
DATA |= {"grpo": ONLINE, "ppo": [*ONLINE, "objective.num_iterations=2", "objective.num_mini_batches=2"]}
COMMON = [
    "data.max_length=256", "data.truncation=left", "data.on_lint=warn", "train.learning_rate=1e-5", "train.on_nan=skip",
]  # fmt: skip
BARE = ["eval.enabled=false", "train.save_strategy=no"]
WRITES = ("sft", "pretrain", "dpo", "orpo", "grpo", "ppo")
"""Objectives of models that can be asked what they know."""
MORE = {"freeze": ["method.num_layers=2"], "full": []}
Cell = dict[str, Any]


def words(cell: Cell, given: argparse.Namespace, folder: Path) -> list[str]:
    """A cell as the words of `tunesmith train`."""
    model = "demo/smollm2-135m-instruct" if cell["model"] == "smollm2" else str(folder / "tiny")
    chosen = [
        f"model.path={model}",
        "model.precision=fp32",
        f"method={cell['method']}",
        f"objective={cell['objective']}",
    ]
    rows = max(64, int(cell["batch"]) * given.steps)  # none is seen twice
    size = [f"train.per_device_train_batch_size={cell['batch']}", f"train.max_steps={given.steps}"]
    size += [f"data.max_samples={rows}"]
    around = [f"eval.retention={str(cell['objective'] in WRITES).lower()}"] if given.whole else BARE
    return [*chosen, *MORE.get(cell["method"], []), *DATA[cell["objective"]], *COMMON, *size, *around]


def tiny(folder: Path) -> None:
    """A small Llama with SmolLM2's words, in a folder."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from tunesmith.model.hub import locate
    from tunesmith.model.load import load_tokenizer

    tokenizer = load_tokenizer(locate("demo/smollm2-135m-instruct"))
    config = LlamaConfig(
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        vocab_size=len(tokenizer),
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "tiny")
    tokenizer.save_pretrained(folder / "tiny")


def told(value: dict[str, Any]) -> None:
    """A line of JSON for the process that asked."""
    sys.stdout.write(json.dumps(value) + "\n")


def measure(said: list[str]) -> None:
    """One run in this process."""
    import time

    from transformers import TrainerCallback

    from tunesmith.config.load import load
    from tunesmith.machine import peak_memory_mb
    from tunesmith.run import Run
    from tunesmith.training.train import train

    class Watch(TrainerCallback):
        """When each step ended: what is before it, such as answers that are written, is part of the next."""

        def __init__(self) -> None:
            self.ends: list[tuple[float, float]] = []

        def on_step_end(self, args, state, control, **made):
            self.ends.append((time.perf_counter(), busy() - time.process_time()))

    watch = Watch()
    with TemporaryDirectory() as folder:
        train(load(Run, None, [*said, f"output={folder}/run"]).value, [watch], quiet=True)
    steps = [later - sooner for (sooner, _), (later, _) in pairwise(watch.ends[NEW - 1 :])]
    others = max(0.0, watch.ends[-1][1] - watch.ends[NEW - 1][1]) / max(sum(steps), 1e-9)
    told({"peak": peak_memory_mb() / 1024, "steps": steps, "others": others})


def predict(jobs: list[list[str]]) -> None:
    """The plans of some runs, a line each."""
    from tunesmith.config.load import load
    from tunesmith.plan import past
    from tunesmith.plan.device import this_cpu
    from tunesmith.plan.estimate import Setting
    from tunesmith.plan.known import find
    from tunesmith.run import Run
    from tunesmith.training import planned

    past.nearest = lambda *_: []  # what was learnt of runs takes no part
    for said in jobs:
        run = load(Run, None, said).value
        found, setting = find(run.model.path), Setting(this_cpu())
        rows = planned.read(run, found, (None, None), lambda _: None)
        made, done, steps = planned.plan(run, setting, rows, found), planned.work(run, setting, rows), []
        for sampled in done.sampled[NEW:]:
            with mock.patch.object(planned, "work", return_value=replace(done, sampled=(sampled,))):
                steps.append(planned.plan(run, setting, rows, found).step_seconds)
        told({"peak": made.peak, "steps": steps, "memory": made.memory})


def learnt(row: Cell, rows: list[Cell]) -> float:
    """How far the plan of a cell's time is off once the other cells have been seen, as runs are that were before."""
    from tunesmith.plan import past

    others = [one | {"time": {"planned": 1 + one["errors"][1], "measured": 1.0}} for one in rows if one is not row]
    with mock.patch.object(past, "known", return_value=others):
        seen = past.nearest(None, row, "time")  # pyright: ignore[reportArgumentType] - it goes to what is patched
    return (1 + row["errors"][1]) * past.factor(seen, "time") - 1


def asked(kind: str, job: Any = None) -> list[dict[str, Any]]:
    """What a process of its own answers; it begins as `tunesmith` does."""
    words = [sys.executable, str(HERE), kind, json.dumps(job)]
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | BEFORE | settled())
    if done.returncode:
        return [{"failed": (done.stderr.strip().splitlines() or ["died"])[-1]}]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def line(text: str) -> None:
    sys.stdout.write(text + "\n")


def table(rows: list[dict[str, Any]]) -> None:
    line(
        "| model | method | objective | batch | GB planned | measured | error | s a step planned | measured | error |"
        " after the others |"
    )
    line("|-|-|-|-|-|-|-|-|-|-|-|")
    for row in rows:
        cell = " | ".join(str(row[key]) for key in ("model", "method", "objective", "batch"))
        if "failed" in row:
            line(f"| {cell} | {row['failed']} |")
            continue
        figures = [row[what]["peak"] for what in ("planned", "measured")]
        figures += [median(row[what]["steps"]) for what in ("planned", "measured")]
        memory, time, left = row["errors"]
        line(
            f"| {cell} | {figures[0]:.2f} | {figures[1]:.2f} | {memory:+.0%} | {figures[2]:.3f} | {figures[3]:.3f} |"
            f" {time:+.0%} | {left:+.0%} |"
        )
    busiest = max((row["measured"]["others"] for row in rows if "errors" in row), default=0.0)
    line(f"other processes took {busiest:.2f} processors at most while a cell was measured")
    for at, what in enumerate(("memory", "time", "time after the others")):
        errors = [abs(row["errors"][at]) for row in rows if "errors" in row]
        if errors:
            line(f"{what}: median error {median(errors):.0%}, worst {max(errors):.0%}, of {len(errors)} cells")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="tiny,smollm2")
    parser.add_argument("--methods", default="full,lora,freeze,prefix_tuning,bottleneck,ia3")
    parser.add_argument("--objectives", default="sft,classify,dpo,pretrain")
    parser.add_argument("--batches", default="2,8,32")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--whole", action="store_true", help="measure before and after, ask, and save")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    from tunesmith.training.planned import SAMPLED

    if not NEW < given.steps <= SAMPLED:
        parser.error(
            f"--steps: more than {NEW}, which are not timed, and no more than {SAMPLED}, which a plan looks at"
        )
    axes = (given.models, given.methods, given.objectives, given.batches)
    names = ("model", "method", "objective", "batch")
    cells = [dict(zip(names, cell, strict=True)) for cell in product(*(axis.split(",") for axis in axes))]
    with TemporaryDirectory() as place:
        folder = Path(place)
        tiny(folder)
        jobs = [words(cell, given, folder) for cell in cells]
        plans = asked("--predict", jobs)
        if len(plans) != len(cells):
            raise SystemExit(f"plans failed: {plans[-1]}")
        rows: list[Cell] = []
        for cell, job, planned in zip(cells, jobs, plans, strict=True):
            [found] = asked("--measure", job)
            if "failed" in found:
                rows.append(cell | found)
                continue
            pairs = zip(planned["steps"], found["steps"], strict=True)
            errors = [planned["peak"] / found["peak"] - 1, median(made / took for made, took in pairs) - 1]
            rows.append(cell | {"planned": planned, "measured": found, "errors": errors})
            sys.stderr.write(json.dumps(rows[-1]) + "\n")  # what is there, if it is cut short
    done = [row for row in rows if "errors" in row]
    for row, error in [(row, learnt(row, done)) for row in done]:
        row["errors"].append(error)
    table(rows)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    pin()
    if sys.argv[1:2] == ["--measure"]:
        measure(json.loads(sys.argv[2]))
    elif sys.argv[1:2] == ["--predict"]:
        predict(json.loads(sys.argv[2]))
    else:
        main()
