"""What SIGINT and SIGTERM do: the first finishes the step and saves, the second stops at once.

SIGHUP, of a terminal that is closed, does the same; a process that has no terminal does not hear it.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ..errors import Interrupted, Stopped

WATCHED = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Signals:
    """Within it, a signal while steps are taken asks for a stop; one before or after stops at once."""

    def __init__(self) -> None:
        self.stop = False
        """Whether a stop was asked for."""
        self.stepping = False
        """Whether there is a step to finish, and so something to save."""
        self.resume = ""
        """How to go on, once there is a run to go on with."""
        self.before: dict[int, object] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python takes no handlers
            self.before = {number: signal.signal(number, self.heard) for number in WATCHED}
            if hasattr(signal, "SIGHUP") and not attached():
                signal.signal(signal.SIGHUP, signal.SIG_IGN)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]: what signal() itself gave back

    def heard(self, number: int, frame: FrameType | None) -> None:
        if self.stop:
            raise SystemExit(128 + number)
        self.stop = True
        if self.stepping:
            return
        name = signal.Signals(number).name
        if self.resume:
            raise Stopped(f"stopped by {name}; nothing is lost; go on with: {self.resume}")
        raise Interrupted(f"stopped by {name}; there was nothing to save")

    @contextmanager
    def aside(self) -> Iterator[None]:
        """What is done within it between two steps is given up when a stop is asked for."""
        self.stepping = False
        try:
            yield
        except Stopped:
            pass
        finally:
            self.stepping = True


def attached() -> bool:
    """Whether this process has a terminal."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY))
    except OSError:
        return False
    return True
