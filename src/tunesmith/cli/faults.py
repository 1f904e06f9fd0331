"""faults: a run again and again, killed and its checkpoints spoilt at random; it must end as if nothing had been.

A process that has loaded everything forks one for each attempt, so that an attempt takes no longer than its steps.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from tempfile import mkdtemp
from typing import Annotated, Any

import typer

from ..errors import BadEnvironment, Refusal
from .show import json_out, line, table
from .train import WORDS, Json

ALWAYS = ("train.logging_steps=1", "eval.enabled=false", "data.eval_size=0", "train.save_strategy=steps")


def register(app: typer.Typer) -> None:
    app.command(context_settings=WORDS, hidden=True)(faults)


def faults(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(help="A YAML file, short: every round trains it whole.")],
    rounds: Annotated[int, typer.Option(help="How often.")] = 20,
    seed: Annotated[int, typer.Option(help="Of what happens when.")] = 0,
    as_json: Json = False,
) -> None:
    """Stop, kill and spoil a run at random, resume it, and compare its end with that of a run left alone."""
    if not hasattr(os, "fork"):
        raise BadEnvironment("faults needs a system that forks; run it on Linux or macOS")
    load_all()
    root = Path(mkdtemp(prefix="tunesmith-faults-"))
    words = ["train", recipe, *context.args, *ALWAYS]
    began = time.perf_counter()
    if code := attempt([*words, f"output={root / 'alone'}"], root / "alone.log"):
        raise Refusal(f"left alone, the run ends with exit code {code}; see {root / 'alone.log'}")
    usual, expected = time.perf_counter() - began, outcome(root / "alone")
    draw, tried, lost = random.Random(seed), Counter(), Counter()
    for number in range(rounds):
        folder = root / f"round-{number}"
        happened = disturb([*words, f"output={folder}"], folder, draw, usual)
        tried.update(happened)
        if outcome(folder) == expected:
            shutil.rmtree(folder)
        else:
            lost.update(happened)
            line(f"round {number} ended otherwise after {', '.join(happened)}; see {folder}")
    survived = rounds - sum(1 for _ in root.glob("round-*/"))
    if as_json:
        json_out({"rounds": rounds, "survived": survived, "tried": tried, "lost": lost, "folder": str(root)})
    else:
        rows = [[name, str(count), str(lost[name])] for name, count in sorted(tried.items())]
        table(
            f"{survived} of {rounds} rounds ended as the run left alone did", ["fault", "times", "in lost rounds"], rows
        )
    if survived < rounds:
        raise Refusal(f"{rounds - survived} of {rounds} rounds ended otherwise; they are kept in {root}")
    shutil.rmtree(root)


CLOCKED = re.compile("tokens_per_second|machine/")
"""Figures that are another thing each time."""
LOADED = (
    "accelerate",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "peft.tuners.lora.bnb",
    "rich.console",
    "rich.table",
    "torch.profiler",
    "transformers.trainer_pt_utils",
    "tunesmith.training.train",
)
"""What every attempt would load for itself otherwise, the picture in a report included."""


def load_all() -> None:
    """Load that, and all that may be named in a recipe, of which one is read."""
    from ..config.load import load
    from ..run import Run

    for name in LOADED:
        import_module(name)
    load(Run, None, ["model.path=.", "data.path=."])


def outcome(folder: Path) -> Any:
    """What a run came to: its weights, and every step's figures but those of the clock."""
    from ..runs import RunFolder

    files = sorted([*folder.glob("adapter/*.safetensors"), *folder.glob("model/*.safetensors")])
    steps = [{name: line[name] for name in line if not CLOCKED.match(name)} for line in RunFolder(folder).metrics]
    return [(file.name, file.read_bytes()) for file in files], steps


def disturb(words: list[str], folder: Path, draw: random.Random, usual: float) -> list[str]:
    """Begin a run, let things happen to it, and let it end. What happened."""
    happened = []
    for _ in range(draw.randint(1, 3)):
        name = draw.choice(sorted(HAPPENS))
        happened.append(name)
        happens = partial(HAPPENS[name], folder=folder, draw=draw, usual=usual)
        code = attempt(going_on(words, folder), folder.with_suffix(".log"), happens)
        if code == 0:
            break
        places = sorted((folder / "checkpoints").glob("step-0*"))
        if len(places) > 1 and draw.random() < 0.5:
            happened.append(spoil := draw.choice(sorted(SPOILS)))
            SPOILS[spoil](draw.choice(sorted(places[-1].iterdir())), draw)
    if code := attempt(going_on(words, folder), folder.with_suffix(".log")):
        line(f"{folder.name}: resumed, it ends with exit code {code}")
    return happened


def going_on(words: list[str], folder: Path) -> list[str]:
    if (folder / "run.json").exists():
        return ["train", "--resume", str(folder)]
    shutil.rmtree(folder, ignore_errors=True)  # killed before there was anything to lose
    return words


def attempt(words: list[str], log: Path, happens: Callable[[int], None] | None = None) -> int:
    """Run a command in a forked process while something happens to it; its exit code, or minus the signal's number."""
    pid = os.fork()
    if pid == 0:
        child(words, log)
    if happens:
        happens(pid)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def child(words: list[str], log: Path) -> None:
    """Never returns."""
    code = 70
    try:
        os.setsid()
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for stream in (1, 2):
            os.dup2(file, stream)
        from . import main

        main(words)
        code = 0
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def there(pid: int) -> bool:
    """Whether a child has not ended yet; it stays to be waited for."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def send(*numbers: signal.Signals, pause: float = 0.0) -> Callable:
    """Signals at some moment of the run."""

    def happen(pid: int, folder: Path, draw: random.Random, usual: float) -> None:
        until = time.monotonic() + draw.random() * usual
        while there(pid) and time.monotonic() < until:
            time.sleep(0.002)
        for number in numbers:
            if there(pid):
                os.kill(pid, number)
                time.sleep(pause)

    return happen


def while_saving(pid: int, folder: Path, draw: random.Random, usual: float) -> None:
    """kill -9 while a checkpoint, one of the next few, is half written."""
    left = draw.randint(0, 3)
    seen = ""
    while there(pid):
        half = next((folder / "checkpoints").glob(".step-*.tmp"), None) if (folder / "checkpoints").is_dir() else None
        if half is not None and half.name != seen:
            seen, left = half.name, left - 1
            if left < 0:
                time.sleep(draw.random() * 0.005)
                os.kill(pid, signal.SIGKILL)
                return


HAPPENS: dict[str, Callable[..., None]] = {
    "SIGKILL": send(signal.SIGKILL),
    "SIGKILL while saving": while_saving,
    "SIGTERM": send(signal.SIGTERM),
    "SIGINT": send(signal.SIGINT),
    "SIGTERM twice": send(signal.SIGTERM, signal.SIGTERM),
    "SIGSTOP and SIGCONT, then SIGKILL": send(signal.SIGSTOP, signal.SIGCONT, signal.SIGKILL, pause=0.1),
}


def cut(file: Path, draw: random.Random) -> None:
    os.truncate(file, draw.randrange(file.stat().st_size))


def flip(file: Path, draw: random.Random) -> None:
    content = bytearray(file.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    file.write_bytes(content)


def future(file: Path, draw: random.Random) -> None:
    shutil.copytree(file.parent, file.parent.with_name("step-99999999"), dirs_exist_ok=True)


SPOILS: dict[str, Callable[[Path, random.Random], None]] = {
    "a file cut short": cut,
    "a bit flipped": flip,
    "a file removed": lambda file, draw: file.unlink(),
    "an empty folder of a later step": lambda file, draw: file.parent.with_name("step-99999998").mkdir(exist_ok=True),
    "a copy under a later number": future,
}
