"""Our preparation of rows in a process of its own; the first argument is a JSON job."""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory


def main() -> None:
    job = json.loads(sys.argv[1])
    with Memory() as memory:
        took = lint(job) if job["do"] == "lint" else prepare(job)
    main = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stdout.write(json.dumps(took | {"peak": memory.peak, "main": main}) + "\n")


def prepare(job: dict) -> dict[str, float]:
    """The seconds that it takes, by the clock and of the processors; what it comes to is written down, if asked for."""
    from tunesmith.data.keeping.part import Part
    from tunesmith.data.reading.places import places
    from tunesmith.data.rendering.render import Renderer
    from tunesmith.model.hub import locate, locate_data
    from tunesmith.model.load import load_tokenizer
    from tunesmith.run import Data, Model, Run

    tokenizer = load_tokenizer(locate(job["model"]))
    tokenizer.chat_template = Path(job["template"]).read_text()
    data = Data(path=job["rows"], eval_size=0.0, max_length=job["max_length"])
    run = Run(model=Model(path=job["model"]), data=data)
    began, busy = time.perf_counter(), cpu()
    [place] = places(data, locate_data)
    with TemporaryDirectory() as home:
        os.environ["TUNESMITH_HOME"] = home
        stored = Part(run, place, Renderer(tokenizer, data), lambda text: None).stored()
        took = {"seconds": time.perf_counter() - began, "cpu": cpu() - busy}
        if job["out"]:
            with Path(job["out"]).open("w") as out:
                for tokens in stored:
                    out.write(json.dumps([tokens.ids, [False, *tokens.learn[1:]]]) + "\n")
    return took


def lint(job: dict) -> dict[str, float]:
    """The seconds that every rule takes that needs no tokenizer, near-duplicates aside.

    What a command takes to start, for one row as for a million, is told apart, as it is of the preparation.
    """
    from tunesmith.cli.data_rows import rows_of
    from tunesmith.data.lint.report import Lint, rules

    began = time.perf_counter()
    checks = Lint([rule for rule in rules(tokens=False) if rule.name != "near-duplicate"], None, "answers")
    rows_of(job["rows"], None, [])
    started = time.perf_counter() - began
    began, busy = time.perf_counter(), cpu()
    rows = rows_of(job["rows"], None, [])
    for looked in rows.folded(checks.looked):
        checks.take(looked)
    checks.report()
    return {"seconds": time.perf_counter() - began, "cpu": cpu() - busy, "start": started}


def cpu() -> float:
    """Seconds of the processors' time so far, of this process and those that it has forked and that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


class Memory:
    """The most memory that this process and those it forks have had at once; pages that they share count once."""

    def __enter__(self) -> Memory:
        self.peak, self.ended = 0.0, threading.Event()
        self.watch = threading.Thread(target=self.look, daemon=True)
        self.watch.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.ended.set()
        self.watch.join()

    def look(self) -> None:
        pause = 0.5
        while not self.ended.wait(pause):
            pause = min(8.0, pause * 1.5)  # to look takes time itself
            children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
            self.peak = max(self.peak, sum(share(pid) for pid in [str(os.getpid()), *children]))


def share(pid: str) -> float:
    """MB of a process, of pages that several have its share."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:  # it has ended
        return 0.0
    return int(text.partition("\nPss:")[2].split()[0]) / 1024


if __name__ == "__main__":
    main()
