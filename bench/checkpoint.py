"""How long training stands still for a checkpoint, as a share of its time where one is written each minute.

    python bench/checkpoint.py [--quick] [--json rows.json] [key=value ...]

A run of LoRA on a small real model saves after every few steps. A checkpoint costs the loop the copy of its state, for
which training waits, and what the thread that writes, syncs and hashes takes from the processors meanwhile: at most the
processor time that it uses. Their sum, over a minute, is judged; how much longer the steps beside it took is shown.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from material import MODEL
from train import LORA, REVIEW, Row, table
from worker import pin, say, settled

GOAL = 0.02
MINUTE = 60.0
EVERY = 3
"""Steps between two checkpoints."""


@dataclass
class Timed:
    """When something was done: by the clock, and the processor time of its thread."""

    spans: list[tuple[float, float]] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def around(self, act: Callable) -> Callable:
        """The same act, timed."""

        def timed(*given):
            began, cpu = time.perf_counter(), time.thread_time()
            try:
                return act(*given)
            finally:
                self.spans.append((began, time.perf_counter()))
                self.cpu.append(time.thread_time() - cpu)

        return timed

    @property
    def seconds(self) -> list[float]:
        return [end - began for began, end in self.spans]


def run(words: list[str], folder: Path) -> tuple[Timed, Timed, Timed]:
    """Steps, standstills and writings of a run. The first of each is left out: it meets what is not yet loaded."""
    from tunesmith.config.load import load
    from tunesmith.run import Run
    from tunesmith.training import checkpoint
    from tunesmith.training.loop import Loop
    from tunesmith.training.train import train

    steps, stills, writings = Timed(), Timed(), Timed()
    checkpoint.write = writings.around(checkpoint.write)
    checkpoint.Writer.save = stills.around(checkpoint.Writer.save)
    Loop.summed = steps.around(Loop.summed)
    train(load(Run, None, [*words, f"output={folder / 'run'}"]).value, quiet=True)
    for timed in (steps, stills, writings):
        del timed.spans[0], timed.cpu[0]
    return steps, stills, writings


def measure(words: list[str], folder: Path) -> list[Row]:
    steps, stills, writings = run(words, folder)
    beside = [any(a < end and b > began for a, b in writings.spans) for began, end in steps.spans]
    alone, disturbed = ([s for s, b in zip(steps.seconds, beside, strict=True) if b is way] for way in (False, True))
    newest = max((folder / "run" / "checkpoints").glob("step-*"))
    size = sum(file.stat().st_size for file in newest.iterdir())
    still, cpu = median(stills.seconds), median(writings.cpu)
    share = (still + cpu) / MINUTE
    longer = median(disturbed) / median(alone) if disturbed and alone else float("nan")
    note = f"median of {len(stills.spans)} checkpoints; {min(stills.seconds):.2g} to {max(stills.seconds):.2g} s"
    return [
        Row("share of a minute, at most", share, GOAL, share <= GOAL, "share", "standstill and the writer's CPU time"),
        Row("training stands still", still, unit="s", note=note),
        Row("the writer: wall", median(writings.seconds), unit="s", note="beside training: save, sync, hash, rename"),
        Row("the writer: CPU", cpu, unit="CPU-s"),
        Row("a checkpoint", size / 1e6, unit="MB"),
        Row("forward and backward, nothing written", median(alone), unit="s", note=f"{len(alone)} steps"),
        Row("the same beside the writer", longer, unit="times", note=f"{len(disturbed)} steps, on a machine as it was"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two checkpoints: that all runs, not how fast")
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("words", nargs="*", help="key=value, such as method=full")
    asked = parser.parse_args()
    load, count = os.getloadavg()[0], 2 if asked.quick else 8
    say(f"load {load:.2f}; {pin()}")
    words = [f"model.path={MODEL}", "model.precision=fp32", "data.path=demo/movie-reviews", "data.format=template"]
    words += [f"data.format.prompt={REVIEW}", "eval.enabled=false", "train.per_device_train_batch_size=8", *LORA]
    words += [f"train.save_steps={EVERY}", f"train.max_steps={EVERY * count}", *asked.words]
    with TemporaryDirectory() as name:
        rows = measure(words, Path(name))
    rows.insert(0, Row("load before", load, unit=""))
    sys.stdout.write(table(rows) + "\n")
    if asked.json:
        asked.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    os.environ.update(settled())
    from tunesmith.start import begin_again

    begin_again()  # as the command line does
    main()
