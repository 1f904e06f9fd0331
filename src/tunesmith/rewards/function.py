"""What a function of the user's own makes of an answer."""

from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from select import select
from typing import Any

from ..code import function_of
from ..config.record import Positive
from ..errors import RecipeError
from .base import Reward, Said, Scorer, Unscored, Values, reward

ASKED = ("prompt", "completion", "truth", "row", "messages", "tokens", "stopped")
STARTING = 120.0
"""Seconds that the file may take to load."""


@reward("function")
class Function(Reward):
    """What a function of your own gives: it asks by its arguments' names for prompt, completion, truth, row, messages,
    tokens or stopped, and gives a number.

    It runs in a process of its own, which is ended when it takes too long and begun again. An answer for which it
    raises, hangs, or gives no number is counted as not scored.
    """

    path: str
    """The function, as FILE.py:NAME. It is run: name one that you trust."""
    batch: bool = False
    """Call it once with lists, which are named prompts, completions and so on; it gives a list of numbers."""
    timeout: Positive = 10.0
    """Seconds that a call may take."""

    def refuse(self, key):
        file, _, name = self.path.rpartition(":")
        if not file.endswith(".py") or not name.isidentifier():
            raise RecipeError(f"{key}.path: must be FILE.py:FUNCTION (got '{self.path}')")
        if not Path(file).is_file():
            raise RecipeError(f"{key}.path: {file}: no such file; name the Python file that has the function {name}")

    def code(self):
        return [Path(self.path.rpartition(":")[0])]

    def scorer(self, tools):
        child = Child(self.path, self.batch, self.timeout)
        return Scorer(lambda said: self.scored(child, said), child.end)

    def scored(self, child: Child, said: Sequence[Said]) -> Values:
        if not said:
            return []
        if not self.batch:
            return [child.number(answer) for answer in map(child.ask, map(asked, said))]
        each = [asked(one) for one in said]
        answer = child.ask({f"{name}s" if name != "stopped" else name: [one[name] for one in each] for name in ASKED})
        if not isinstance(answer, Unscored) and (not isinstance(answer, list) or len(answer) != len(said)):
            length = f"{len(answer)} values" if isinstance(answer, list) else repr(answer)[:60]
            answer = Unscored(f"{self.path} must give a list of {len(said)} numbers (gave {length})")
        return [answer] * len(said) if isinstance(answer, Unscored) else [child.number(value) for value in answer]


def asked(said: Said) -> dict[str, Any]:
    return {name: getattr(said, name) for name in ASKED}


@dataclass
class Child:
    """The process in which a function runs. It is begun when it is first needed, and again after it has ended."""

    path: str
    batch: bool
    timeout: float
    process: subprocess.Popen[bytes] | None = None
    read: bytes = field(default=b"")

    def begin(self) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-m", __name__, self.path, str(int(self.batch))]
        self.read = b""
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=os.name != "nt"
        )
        ready = self.line(self.process, STARTING)
        if ready is None or "refused" in ready:
            self.end()
            late = f"rewards: {self.path}: took longer than {STARTING:g} s to load, or ended its process; mend it"
            raise RecipeError(ready["refused"] if ready else late)
        return self.process

    def ask(self, given: dict[str, Any]) -> Any:
        """What the function gives, or why it gave nothing."""
        process = self.process or self.begin()
        text = json.dumps(given, default=str) + "\n"
        try:
            assert process.stdin
            process.stdin.write(text.encode())
            process.stdin.flush()
            answer = self.line(process, self.timeout)
        except BrokenPipeError:
            answer = None
        if answer is None:
            gone = process.poll()
            self.end()
            late = f"took longer than {self.timeout:g} s and was ended"
            return Unscored(f"{self.path} {late if gone is None else f'ended its process (exit code {gone})'}")
        if "raised" in answer:
            file, _, name = self.path.rpartition(":")
            return Unscored(f"{file}{answer['line']}: {name} raised {answer['raised']}")
        return answer["gave"]

    def line(self, process: subprocess.Popen[bytes], seconds: float) -> dict[str, Any] | None:
        """The next line that the process says; None if it says none in time, or ends."""
        from time import monotonic

        assert process.stdout
        until = monotonic() + seconds
        while b"\n" not in self.read:
            left = until - monotonic()
            if left <= 0 or not select([process.stdout], [], [], left)[0]:
                return None
            more = os.read(process.stdout.fileno(), 1 << 16)
            if not more:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(1)
                return None
            self.read += more
        text, _, self.read = self.read.partition(b"\n")
        return json.loads(text)

    def number(self, value: Any) -> float | Unscored:
        if isinstance(value, Unscored):
            return value
        if isinstance(value, int | float):
            with suppress(OverflowError):  # of whole numbers beyond all floats
                return float(value)
        return Unscored(f"{self.path} must give a number (gave {value!r:.60})")

    def end(self) -> None:
        """End the process and what it has started."""
        if self.process is None:
            return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL) if os.name != "nt" else self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(OSError):
                assert pipe
                pipe.close()
        self.process.wait()
        self.process = None


# --- in the process of its own ----------------------------------------------------------------------------------------


def serve(path: str, batch: bool) -> None:
    """Load the function, then answer a line with a line until there are no more."""
    with os.fdopen(os.dup(0), "rb") as told, os.fdopen(os.dup(1), "wb", buffering=0) as out:
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)  # what the function reads and prints is not what is spoken here
        os.dup2(2, 1)
        follow_parent()
        try:
            function, names = wanted(path, batch)
        except RecipeError as error:
            out.write(spoken({"refused": str(error)}))
            return
        out.write(spoken({}))
        for text in told:
            given = json.loads(text)
            out.write(spoken(called(function, {name: given[name] for name in names}, path)))


def wanted(path: str, batch: bool) -> tuple[Any, list[str]]:
    """The function, and what it asks for by the names of its arguments."""
    file, _, name = path.rpartition(":")
    function = function_of(file, name, "rewards")
    known = [f"{word}s" if batch and word != "stopped" else word for word in ASKED]
    names = list(inspect.signature(function).parameters)
    if unknown := [word for word in names if word not in known]:
        raise RecipeError(f"rewards: {path}: asks for {', '.join(unknown)}; its arguments may be {', '.join(known)}")
    return function, names


def called(function: Any, given: dict[str, Any], path: str) -> dict[str, Any]:
    from ..code import line, said

    try:
        value = function(**given)
        return {"gave": value.tolist() if hasattr(value, "tolist") else value}
    except (Exception, SystemExit) as error:  # noqa: BLE001 - somebody else's code: it may fail in any way
        return {"raised": said(error).split("\n")[0], "line": line(error, path.rpartition(":")[0])}


def spoken(value: dict[str, Any]) -> bytes:
    try:
        return json.dumps(value).encode() + b"\n"
    except (TypeError, ValueError):
        return json.dumps({"gave": f"{type(value.get('gave')).__name__}"}).encode() + b"\n"


def follow_parent() -> None:
    """End this process when the one that began it is gone, whatever the function is doing."""
    from threading import Thread
    from time import sleep

    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            sleep(1)
        os._exit(1)

    Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2] == "1")
