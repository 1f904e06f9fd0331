"""What SIGINT and SIGTERM do: the first finishes the step and saves, the second stops at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType

from ..errors import Interrupted

WATCHED = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """Within it, a signal while steps are taken asks for a stop; one before or after stops at once."""

    def __init__(self) -> None:
        self.stop = False
        """Whether a stop was asked for."""
        self.stepping = False
        """Whether there are steps to finish, and so something to save."""
        self.before: dict[int, object] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python takes no handlers
            self.before = {number: signal.signal(number, self.heard) for number in WATCHED}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]: what signal() itself gave back

    def heard(self, number: int, frame: FrameType | None) -> None:
        if self.stop:
            raise SystemExit(128 + number)
        if not self.stepping:
            raise Interrupted(f"stopped by {signal.Signals(number).name}; there was nothing to save")
        self.stop = True
