"""Commands in processes of their own that take no longer than their steps, and things that happen at a given moment.

As a program it is the process that has loaded what a run needs: it reads a job on each line of stdin, forks a process
that carries it out, and writes what became of it. As a module it is the other side of that.
"""

import json
import os
import signal
import subprocess
import sys
import time
from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path

APART = ["unshare", "--user", "--map-root-user", "--mount", "--net"]
"""Begins a program that may mount and that sees no network."""
LONGEST = 240
"""Seconds until a command that hangs is killed."""


class Ready:
    """A process that carries out commands; `apart` from this one's mounts and network, if so asked."""

    def __init__(self, apart: bool = False) -> None:
        self.process = subprocess.Popen(
            [*(APART if apart else []), sys.executable, __file__],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def run(self, *words, log: Path, moments=(), env=None, skewed: bool = False) -> tuple[int, str]:
        """A command's exit code, or minus the number of the signal that killed it, and what it said.

        `moments` are a pattern and a line of shell each, which is carried out within the command's process when that
        pattern fits something that it does: `open FILE`, `os.mkdir FOLDER`, `said TEXT`. `skewed` is whether its clock
        jumps.
        """
        job = {"words": [str(word) for word in words], "log": str(log), "moments": moments, "skewed": skewed}
        code = self.ask(job | {"env": env or {}})["code"]
        return code, self.shell(f"cat '{log}'; rm '{log}'")

    def shell(self, line: str) -> str:
        """What a line of shell prints, among this process's mounts."""
        return self.ask({"shell": line})["printed"]

    def ask(self, job: dict) -> dict:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def __enter__(self) -> "Ready":
        return self

    def __exit__(self, *_) -> None:
        self.process.communicate()  # its stdin is closed, so it ends


def main() -> None:
    from tunesmith.cli.faults import load_all

    load_all()
    import_module("transformers.models.llama.modeling_llama")
    for line in sys.stdin:
        job = json.loads(line)
        if "shell" in job:
            done = subprocess.run(["sh", "-c", job["shell"]], stdout=subprocess.PIPE, check=True, text=True)
            told = {"printed": done.stdout}
        else:
            pid = os.fork()
            if not pid:
                carry_out(job)
            told = {"code": os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}
        print(json.dumps(told), flush=True)  # noqa: T201 - the answer


def carry_out(job: dict) -> None:
    """Never returns."""
    from tunesmith.cli.faults import child

    signal.alarm(LONGEST)
    os.environ |= job["env"]
    if job["skewed"]:
        skew()
    sys.stderr = Heard(sys.stderr)
    sys.addaudithook(Moments(job["moments"]).look)
    child(job["words"], Path(job["log"]))


class Moments:
    """Carries out lines of shell, one after another, each when what it waits for is done."""

    def __init__(self, moments: list[tuple[str, str]]) -> None:
        self.left = list(moments)

    def look(self, event: str, facts: tuple) -> None:
        if self.left and event in ("open", "os.mkdir", "said") and fnmatch(f"{event} {facts[0]}", self.left[0][0]):
            _, then = self.left.pop(0)
            subprocess.run(["sh", "-c", then], check=True, env=os.environ | {"PID": str(os.getpid())})


class Heard:
    """A stream that lets the moments know what is said, once it has been, or could not be."""

    def __init__(self, stream) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        try:
            return self.stream.write(text)
        finally:
            sys.audit("said", text)

    def __getattr__(self, name: str):
        return getattr(self.stream, name)


def skew() -> None:
    """Let this process's clock jump by a day at every look, back and forth; the machine's own is everybody's."""
    real, looks = time.time_ns, iter(range(10**9))

    def now_ns() -> int:
        return real() + (-1) ** next(looks) * 86_400 * 10**9

    time.time_ns, time.time = now_ns, lambda: now_ns() / 1e9


if __name__ == "__main__":
    main()
