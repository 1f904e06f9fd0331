"""Work on many things at once, in processes of their own, with the results in order."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

from ...errors import BadEnvironment

Thing = TypeVar("Thing")
Made = TypeVar("Made")

ALONE = 2
"""Things that are worked on before other processes are worth their while."""

here: Callable[[Any], Any]
"""What a forked process works at, and no other has: it comes along when it is forked, and need not be sent."""


def ahead(work: Callable[[Thing], Made], things: Iterable[Thing]) -> Iterator[Made]:
    """What `work` makes of each thing, in their order; a few things are worked on ahead of the one asked for.

    One process a processor, where processes can be forked; else, and for few things, this process does it. What `work`
    changes stays where it was changed. Raises BadEnvironment if a process dies.
    """
    left = iter(things)
    yield from map(work, islice(left, ALONE))
    workers = processors()
    following = list(islice(left, 1))
    if not following:
        return
    if workers < 2 or not sys.platform.startswith("linux"):  # on a Mac a forked process may hang in system libraries
        yield from map(work, (thing for some in (following, left) for thing in some))
        return
    context = multiprocessing.get_context("fork")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=alone, initargs=(os.getpid(), work))
    waiting: deque[Future[Made]] = deque()
    try:
        for thing in (thing for some in (following, left) for thing in some):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads; ours hold no locks
                waiting.append(pool.submit(at_work, thing))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise BadEnvironment(
            "a process that prepared data was killed, perhaps because memory ran out; nothing half-made was kept."
            " Start again, with fewer processors (taskset -c 0 tunesmith ...) if memory is short"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def seldom_tidied() -> Iterator[None]:
    """Within it, Python seldom looks for what refers to itself, and never among what is there already.

    Rows are many small objects: looking after every few hundred took a third of the time, and had forked processes copy
    the memory that they share with this one.
    """
    usual = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)
    try:
        yield
    finally:
        gc.set_threshold(*usual)
        gc.unfreeze()


def processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def at_work(thing: Any) -> Any:
    return here(thing)


def alone(parent: int, work: Callable[[Any], Any]) -> None:
    """How a forked process behaves: it leaves signals to its parent, and ends with it however that ends."""
    global here
    here = work
    for name in ("SIGINT", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # their threads do not come along

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
