"""A process that is told of a run, line by line, and can neither stop it nor hold it up.

What it does may fail, hang, print, or take long to load: the run puts lines into a queue and goes on. It knows of the
run what it is told, and nothing of its command line. Where the run's process is gone without a word, it sees the end
of its lines, so that it can still say so to others.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from threading import Thread
from typing import Any

from .secret import masked

Message = dict[str, Any]
Say = Callable[[str], None]
MOST = 100_000
"""Lines that wait at most; where more come, it has been hanging for long."""
PATIENCE = 30.0
"""Seconds that a run which ends waits for those who follow it."""
LONGEST = 120
"""Seconds that one who follows goes on by itself once the run has ended."""


class Follower:
    """The process, as the run sees it. `failed` is told at most once, with the reason."""

    def __init__(self, module: str, failed: Say) -> None:
        self.failed, self.over = failed, False
        self.threads: list[Thread] = []
        self.lines: queue.Queue[Message | None] = queue.Queue(MOST)
        pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
        command = [sys.executable, "-P", "-m", module]  # -P: no module comes out of the working folder
        try:  # in a session of its own, so that Ctrl-C does not reach it
            self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=nowhere, start_new_session=True)
        except OSError as error:
            self.fail(f"its process cannot be started: {error.strerror}")
            return
        self.threads = [Thread(target=work, daemon=True) for work in (self.write, self.read)]
        for thread in self.threads:
            thread.start()

    def tell(self, message: Message) -> None:
        """Put a line into the queue."""
        if self.over:
            return
        try:
            self.lines.put_nowait(message)
        except queue.Full:
            self.fail(f"{MOST:,} lines wait to be taken in")

    def end(self, message: Message, patience: float = PATIENCE) -> bool:
        """Tell the last line and wait until all was taken in; whether it was, or there is nothing to wait for."""
        self.close(message)
        return self.wait(patience)

    def close(self, message: Message) -> None:
        """Tell the last line."""
        self.tell(message)
        with suppress(queue.Full):
            self.lines.put_nowait(None)

    def wait(self, patience: float) -> bool:
        """Wait until all was taken in; whether it was, or there is nothing to wait for."""
        if not self.threads:
            return True
        self.threads[1].join(max(0.0, patience))
        done = not self.threads[1].is_alive()
        try:
            self.process.wait(1 if done else 0)
        except subprocess.TimeoutExpired:
            LEFT.append(self.process)
        return done

    def fail(self, why: str) -> None:
        if not self.over:
            self.over = True
            self.failed(masked(why))

    def write(self) -> None:
        """Hand on what stands in the queue."""
        pipe = self.process.stdin
        assert pipe is not None
        with suppress(OSError), pipe:  # one that is gone is noticed where it is read
            while (message := self.lines.get()) is not None:
                pipe.write(json.dumps(message).encode() + b"\n")
                pipe.flush()

    def read(self) -> None:
        """Hear what it says, to the end."""
        pipe = self.process.stdout
        assert pipe is not None
        done = False
        with pipe:
            for line in pipe:
                said = json.loads(line)
                done = done or "done" in said
                if "failed" in said:
                    self.fail(said["failed"])
        if not done:
            self.fail(f"its process ended with status {self.process.wait()}")
        self.over = True


LEFT: list[subprocess.Popen[bytes]] = []
"""Those that were not waited for to their end."""


def follow(work: Callable[[Iterator[Message]], None]) -> None:
    """What such a process does: take in messages as they come. It prints nothing, whatever it loads prints."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    if hasattr(os, "nice"):
        os.nice(5)  # the run goes first
    sys.argv = ["tunesmith"]  # nothing of a command line is kept by what is loaded
    try:
        work(messages())
        said: Message = {"done": True}
    except Exception as error:  # noqa: BLE001 - somebody else's code, which may fail in any way
        said = {"failed": masked(f"{type(error).__name__}: {error}".strip().splitlines()[0][:300])}
    not_for_ever()
    with suppress(OSError):  # nobody listens any more
        out.write(json.dumps(said) + "\n")
        out.close()


def messages() -> Iterator[Message]:
    """What the run says, until it has nothing more to say or is gone."""
    for line in sys.stdin:
        if line.endswith("\n"):
            yield json.loads(line)
    not_for_ever()


def not_for_ever() -> None:
    """End this process in a while, whatever it hangs at."""
    if hasattr(signal, "alarm"):
        signal.alarm(LONGEST)
