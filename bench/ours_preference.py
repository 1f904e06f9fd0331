"""Tunesmith's parts of a preference step as a worker: rows as tokens, the reference alone, families on and off.

The first line on stdin says which; then each line `step` is answered with what the next step's rows took.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gate import answer, own_stdout, peak_mb

from tunesmith.start import begin_again


def main() -> None:
    answers = own_stdout()
    job = json.loads(sys.stdin.readline())
    if job["do"] == "render":
        answer(answers, **render(job["words"]))
        return
    with TemporaryDirectory() as folder:
        measured = {"reference": reference, "families": families}[job["do"]](job["words"], Path(folder))
        number = 0
        while sys.stdin.readline().strip() == "step":
            answer(answers, **measured(number))
            number += 1


def render(words: list[str]) -> dict[str, Any]:
    """Every row as it is trained on, and where the model is."""
    run, base, material = read(words)
    facts = ("ids", "learn", "label", "cut")
    sequences = [
        {name: getattr(one, name) for name in facts} | {"line": int(one.origin.rpartition(":")[2])}
        for one in material.sequences
    ]
    return {"model": str(base), "side_by_side": run.objective.side_by_side, "sequences": sequences}


def read(words: list[str]):
    """The run of these words, its model's folder and its rows."""
    from tunesmith.config.load import load
    from tunesmith.data.keeping.material import prepare
    from tunesmith.data.reading.places import places
    from tunesmith.model.hub import locate, locate_data
    from tunesmith.model.load import load_tokenizer
    from tunesmith.run import Run

    run = load(Run, None, words).value
    base = locate(run.model.path)
    material = prepare(run, places(run.data, locate_data), load_tokenizer(base), lambda text: None)
    return run, base, material


def begun(words: list[str]):
    """The loop of a run before its first step, and whom to ask what the model says by then."""
    from tunesmith.model.reference import Asker
    from tunesmith.training.progress import Progress
    from tunesmith.training.train import build

    run, base, material = read(words)
    loop = build(run, base, material, Progress(True))
    return loop, Asker(loop.policy, run.method, loop.layout, {}, lambda text: None)


def reference(words: list[str], folder: Path) -> Callable[[int], dict[str, Any]]:
    """What the model says of a step's rows before it learns: computed, not taken from the cache."""
    from tunesmith.data.keeping.store import learnt
    from tunesmith.model.rows import Strangers

    loop, asker = begun(words)
    seen = 0  # tokens so far, as a training counts them
    asked = [loop.sequences, *([Strangers(loop.sequences, loop.cutoff)] if loop.objective.asks("baseline") else [])]

    def step(number: int) -> dict[str, Any]:
        nonlocal seen
        wanted = sorted(n for part in loop.order.batches(number) for n in loop.sequences_of(part))
        clocks = time.perf_counter(), time.process_time()
        for at, sequences in enumerate(asked):
            asker.compute(folder / f"{number}-{at}", sequences, wanted, learnt(sequences))
        seen += sum(len(loop.sequences[n].ids) for n in wanted)
        return took(*clocks, tokens=seen)

    return step


def families(words: list[str], folder: Path) -> Callable[[int], dict[str, Any]]:
    """A step's gradient, by turns with what sequences begin with once and with each by itself."""
    from tunesmith.data.batch import pack, share
    from tunesmith.data.keeping.store import learnt
    from tunesmith.model.reference import Reference

    loop, asker = begun(words)
    if "reference" in loop.objective.looks():
        targets = learnt(loop.sequences)
        asker.compute(folder / "logp", loop.sequences, range(len(loop.sequences)), targets)
        loop.rows.reference = Reference(folder / "logp", targets)

    def step(number: int) -> dict[str, Any]:
        loop.layout = (share, pack)[number % 2]
        computed = sum(loop.rows.batch(part, loop.layout).ids.numel() for part in loop.parts(number // 2))
        clocks = time.perf_counter(), time.process_time()
        tallies, tokens = loop.gradient(number // 2)
        found = took(*clocks, tokens=tokens, computed=computed)
        found["norm"] = loop.divide(float(tallies["loss"].count))
        loop.optimizer.zero_grad(set_to_none=False)
        return found

    return step


def took(wall: float, cpu: float, **more: float) -> dict[str, Any]:
    """What has passed since these clocks were read."""
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"wall": wall, "cpu": cpu, "loss": 0.0, "peak": peak_mb(), **more}


if __name__ == "__main__":
    begin_again()  # as the command line does
    main()
