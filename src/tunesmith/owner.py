"""One run, one process: a file in the run folder says which, and the kernel's lock on it lets no second one in.

The lock (flock) is let go of however its process ends, kill -9 and a power cut included, so a clock that is set or a
pid that is given anew does not matter. What the file says is for people and for `stop`; it decides only where a file
system has no locks, and there two that start in the same moment are not told apart. Between machines a lock may or may
not hold, so a file that names another machine is never taken over.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from .errors import BadEnvironment, CheckpointError, Refusal
from .files import full

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

NAME = "owner.json"
TOLD = "owner.told"
"""Stands beside it once the owner was told to stop: a second signal would stop it before it has saved."""
LOCKLESS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
"""How file systems say that they have no locks."""


@dataclass(frozen=True)
class Owner:
    """The process that runs a run."""

    pid: int
    born: float
    """When it was started, as `born` says."""
    group: int
    host: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    @property
    def process(self) -> psutil.Process | None:
        """The process, if it is there: one with the same number that was started at another time is another one."""
        with suppress(psutil.NoSuchProcess):
            found = psutil.Process(self.pid)
            same = self.host == platform.node() and abs(born(found) - self.born) < 2  # the boot time is rounded
            if same and found.status() != psutil.STATUS_ZOMBIE:
                return found
        return None


def born(process: psutil.Process) -> float:
    """When a process was started, in seconds; a clock that is set does not move it.

    Linux knows it since the machine's start, and psutil adds a time of that start which follows the clock.
    """
    return round(process.create_time() - (psutil.boot_time() if sys.platform == "linux" else 0), 2)


@contextmanager
def hold(folder: Path, say: Callable[[str], None], refusal: type[Refusal] = CheckpointError) -> Iterator[None]:
    """Own the run in a folder within it; nothing but the owner's file is touched before.

    Raises `refusal` with one sentence if another process owns the run. What a process that is gone has left is taken
    over, and said.
    """
    file = folder / NAME
    handle, locks = opened(file, refusal)
    try:
        before = read(file)
        if before and before.host != platform.node():
            raise refusal(
                f"{folder}: {before} runs it, and this is {platform.node()}; end it there,"
                f" or if it is gone already, remove {file}"
            )
        if before and not locks and before.process:
            raise refusal(busy(file))
        if not locks:
            say(f"{folder}: this file system has no locks; do not start two processes on this run at once")
        if before:
            say(f"{folder}: {before} ran it and is gone; this process takes it over")
        me = psutil.Process()
        group = os.getpgrp() if hasattr(os, "getpgrp") else 0
        try:
            (folder / TOLD).unlink(missing_ok=True)
            os.ftruncate(handle, 0)
            os.write(handle, json.dumps(asdict(Owner(me.pid, born(me), group, platform.node()))).encode())
            yield
        finally:
            if current(handle, file):
                (folder / TOLD).unlink(missing_ok=True)
                file.unlink()
    finally:
        os.close(handle)


def opened(file: Path, refusal: type[Refusal]) -> tuple[int, bool]:
    """The owner's file, open and locked, and whether this file system has locks at all."""
    for attempt in range(10):  # `owner` looks by locking for an instant; and the file may be removed as it is opened
        if attempt:
            time.sleep(0.02)
        try:
            handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            if full(error):
                raise
            raise refusal(f"{file.parent}: cannot be written into: {error.strerror}") from None
        locked = lock(handle, alone=True)
        if locked is None or (locked and current(handle, file)):
            return handle, locked is not None
        os.close(handle)
    raise refusal(busy(file))


def lock(handle: int, alone: bool) -> bool | None:
    """Lock an open file, if nobody else has; None where there are no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in LOCKLESS:
            return None
        raise
    return True


def current(handle: int, file: Path) -> bool:
    """Whether the open file still stands under its name."""
    try:
        return os.path.samestat(os.fstat(handle), file.stat())
    except FileNotFoundError:
        return False


def read(file: Path) -> Owner | None:
    """What an owner's file says; nothing if it is not there, or not yet written."""
    try:
        return Owner(**json.loads(file.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def busy(file: Path) -> str:
    who = read(file) or "another process"
    return f"{file.parent}: {who} runs it already; wait, or end it with `tunesmith runs stop {file.parent}`"


def owner(folder: Path) -> Owner | None:
    """The process that runs a run now; None if there is none. One on another machine is believed to be there."""
    said = read(folder / NAME)
    if said is None or said.host != platform.node():
        return said
    try:
        handle = os.open(folder / NAME, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        locked = lock(handle, alone=False)
    finally:
        os.close(handle)
    there = said.process is not None if locked is None else not locked
    return said if there else None


def stop(folder: Path, timeout: float) -> None:
    """Send SIGTERM to the process that runs a run, unless it was sent before, and wait until it has let go of the run.

    Raises CheckpointError where that process is out of reach, and a Refusal if it still runs after `timeout` seconds.
    """
    if sys.platform == "win32":
        raise BadEnvironment("runs stop: Windows has no SIGTERM; press Ctrl-C where the run was started")
    known = owner(folder)
    if known is None:
        return
    process = known.process
    if process is None:
        there = known.host == platform.node()  # such as in a container beside this one
        where = "it is not seen from here" if there else f"this is {platform.node()}; stop it there"
        raise CheckpointError(f"{folder}: {known} runs it, and {where}")
    with suppress(FileExistsError, FileNotFoundError):  # told already; or ended just now, and removed
        (folder / TOLD).touch(exist_ok=False)
        tell(known, process, folder)
    until = time.monotonic() + timeout
    while owner(folder) == known:
        if time.monotonic() > until:
            raise Refusal(
                f"{folder}: {known} was told to stop and still runs after {timeout:g} s; it saves after the step that"
                f" it is in. Ask again to wait on, or give up what it has not saved with `kill -9 {known.pid}`"
            )
        time.sleep(0.05)


def tell(known: Owner, process: psutil.Process, folder: Path) -> None:
    """Send the signal, to the group or to the process alone."""
    try:
        if leads(known, process):
            os.killpg(known.group, signal.SIGTERM)
        else:
            process.terminate()
    except psutil.NoSuchProcess:
        return
    except (PermissionError, psutil.AccessDenied):
        (folder / TOLD).unlink(missing_ok=True)
        raise CheckpointError(f"{folder}: {known} belongs to another user, who must stop it") from None


def leads(known: Owner, process: psutil.Process) -> bool:
    """Whether a run's process group is its own: the run began it, and all others in it descend from the run.

    A script shares its group with the run that it starts, and a shell puts `tunesmith train | tee log` into one: the
    script would end, and the run would fail at its next line because nobody reads it any more.
    """
    family = {process.pid, *(child.pid for child in process.children(recursive=True))}
    return known.pid == known.group and {pid for pid in psutil.pids() if group_of(pid) == known.group} <= family


def group_of(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except (ProcessLookupError, PermissionError):
        return None
