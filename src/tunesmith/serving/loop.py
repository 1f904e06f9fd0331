"""The one thread that asks the model: it reads what waits, writes a token for every row, and tells who waits for it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Condition, Thread
from typing import Any, Protocol, TypeVar

from .fault import Fault, broken, late
from .lane import Batch, Lane
from .memory import Begun
from .metrics import Metrics
from .row import Ask, Piece, Row

T = TypeVar("T")

AT_ONCE = 2048
"""Tokens of prompts that are read in one pass, filled up to the longest."""
BETWEEN = 512
"""The same while rows are being written, which wait for it."""


class Limits(Protocol):
    """Documented in settings.py."""

    @property
    def max_rows(self) -> int: ...
    @property
    def queue(self) -> int: ...
    @property
    def timeout(self) -> float: ...


@dataclass
class Reading:
    """Prompts that are being read."""

    lane: Lane
    asks: list[Ask]
    begun: Begun


class Loop(Thread):
    """Takes requests from any thread; only this one touches the model."""

    def __init__(self, limits: Limits, lane_of: Callable[[str], Lane], metrics: Metrics, holds: int) -> None:
        super().__init__(name="tunesmith-model", daemon=True)
        self.limits, self.lane_of, self.metrics = limits, lane_of, metrics
        self.holds = holds
        """Tokens that what is being written may come to."""
        self.lanes: list[Lane] = []
        self.waiting: deque[Ask] = deque()
        self.jobs: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self.reading: Reading | None = None
        self.coming = 0
        """Requests that have been let in, and are not yet among those that wait."""
        self.news = Condition()
        self.draining = self.over = False
        self.out: list[tuple[Callable[[Any], None], Any]] = []
        self.post: Callable[[list[tuple[Callable[[Any], None], Any]]], None] = deliver

    # --- from other threads -------------------------------------------------------------------------------------------

    @contextmanager
    def admitted(self, count: int = 1) -> Iterator[None]:
        """Within it so many requests count as waiting, and may be submitted. Raises Fault where too many wait."""
        with self.news:
            self.refuse_more(count)
            self.coming += count
        try:
            yield
        finally:
            with self.news:
                self.coming -= count
                self.news.notify()

    def submit(self, ask: Ask) -> None:
        """Have a request answered that has been admitted."""
        with self.news:
            self.waiting.append(ask)
            self.news.notify()

    def call(self, work: Callable[[], T]) -> Future[T]:
        """Have something done between two passes. Raises Fault where there will be none."""
        done: Future[T] = Future()
        with self.news:
            if self.over:
                raise closing()
            self.jobs.append((work, done))
            self.news.notify()
        return done

    def refuse_more(self, count: int) -> None:
        if self.draining or self.over:
            raise closing()
        if self.coming + len(self.waiting) + count > self.limits.queue + self.room():
            self.metrics.refused += 1
            wait = {"Retry-After": str(self.metrics.wait())}
            raise Fault(429, "too many requests wait; ask again later", code="rate_limit_exceeded", headers=wait)

    def room(self) -> int:
        """Rows that could be begun at once: who comes to a server with nothing to do does not wait."""
        part = self.reading
        rows = self.limits.max_rows - self.busy() - (sum(ask.n for ask in part.asks) if part else 0)
        return max(0, rows) if self.held() < self.holds else 0

    def wake(self) -> None:
        with self.news:
            self.news.notify()

    def drain(self) -> None:
        """Take no more, and end when all is answered."""
        with self.news:
            self.draining = True
            self.news.notify()

    # --- the thread ---------------------------------------------------------------------------------------------------

    def run(self) -> None:
        while self.next():
            self.turn()
        self.over = True

    def turn(self) -> None:
        """All that is done between two looks at what waits: a part of the prompts is read, a token written for all."""
        self.work()
        self.drop_all()
        self.read()
        for lane in self.lanes:
            for batch in list(lane.batches):
                self.write(lane, batch)
        self.flush()

    def next(self) -> bool:
        """Wait until there is something to do; whether there will be."""
        with self.news:
            while not (self.waiting or self.jobs or self.reading or self.busy()):
                if self.draining and not self.coming:
                    self.over = True
                    return False
                self.news.wait()
        return True

    def busy(self) -> int:
        """Rows that are being written."""
        return sum(len(batch.rows) for lane in self.lanes for batch in lane.batches)

    def held(self) -> int:
        """Tokens that these and those that are being read may come to."""
        part = self.reading
        asks = {row.ask for lane in self.lanes for row in lane.rows} | set(part.asks if part else ())
        return sum(ask.size for ask in asks)

    def work(self) -> None:
        while self.jobs:
            work, done = self.jobs.popleft()
            if done.set_running_or_notify_cancel():
                try:
                    done.set_result(work())
                except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
                    done.set_exception(error)

    def drop_all(self) -> None:
        """Let go of what nobody waits for, and of what has taken too long."""
        for lane in self.lanes:
            for batch in list(lane.batches):
                if left := {row for row in batch.rows if gone(row.ask)}:
                    self.part(lane, batch, left)
        with self.news:
            over = [ask for ask in self.waiting if gone(ask)]  # asked once: another time it is later
            self.waiting = deque(ask for ask in self.waiting if ask not in over)
        for ask in over:
            self.gone(ask)
        if self.reading and all(gone(ask) for ask in self.reading.asks):
            for ask in self.reading.asks:
                self.gone(ask)
            self.reading = None

    def part(self, lane: Lane, batch: Batch, left: set[Row]) -> None:
        """Have rows leave that nobody waits for any longer."""
        for row in left:
            self.gone(row.ask)
        others = [row for row in batch.rows if row not in left]
        try:
            lane.leave(batch, [at for at, row in enumerate(batch.rows) if row not in left])
        except Exception as error:  # noqa: BLE001 - who asked is told, and the others go on
            lane.lose(batch)
            self.fail([row.ask for row in others], error)

    def gone(self, ask: Ask) -> None:
        if not ask.cancelled:
            ask.cancelled = True
            self.metrics.late += 1
            self.out.append((ask.hear, late(self.limits.timeout)))

    def read(self) -> None:
        """Read a part of what waits."""
        asks = self.reading.asks if self.reading else []
        began = time.perf_counter()
        try:
            self.reading = self.reading or self.group(asks)
            if self.reading and self.read_on(self.reading):
                self.reading = None
        except Exception as error:  # noqa: BLE001 - who asked is told, and the others go on
            self.reading = None
            self.fail(asks, error)
        finally:
            self.metrics.reading += time.perf_counter() - began

    def read_on(self, part: Reading) -> bool:
        """As much as may be read at once; whether it was the last of it."""
        lane, asks = part.lane, part.asks
        most = BETWEEN if self.busy() else AT_ONCE
        ahead = len(lane.engine.begun(asks[0].prompt)) - len(part.begun.ids)
        if len(asks) == 1 and ahead > most and not asks[0].seen:
            upto = len(part.begun.ids) + most
            read = lane.read(asks, part.begun, upto)
            part.begun = Begun(lane.engine.begun(asks[0].prompt)[:upto], read.cache)
            return False
        lane.join(asks, lane.read(asks, part.begun))
        return True

    def group(self, asks: list[Ask]) -> Reading | None:
        """The next prompts that can be read in one pass, put into `asks`: whatever fails, they are known."""
        with self.news:
            room, left = self.limits.max_rows - self.busy(), self.holds - self.held()
            if not self.waiting or self.waiting[0].n > max(room, 0) or self.waiting[0].size > left:
                return None
            asks.append(self.waiting.popleft())
            try:
                lane = self.lane_of(asks[0].model)
            except Fault as fault:
                self.out.append((asks[0].hear, fault))
                return None
            begun = lane.begun(asks[0])
            longest = len(asks[0].prompt)
            most = BETWEEN if self.busy() else AT_ONCE
            while self.waiting and not asks[0].alone and not begun.ids and len(asks) < room:
                ask = self.waiting[0]
                longest = max(longest, len(ask.prompt))
                wide = longest * (len(asks) + 1) > most or sum(one.size for one in (*asks, ask)) > left
                if wide or ask.alone or not self.beside(ask, lane):
                    break
                asks.append(self.waiting.popleft())
        for ask in asks:
            ask.reused = len(begun.ids)
            self.metrics.prompt_tokens += len(ask.prompt)
            self.metrics.reused_tokens += ask.reused
        if len(asks) > 1:
            begun = lane.shared(asks)
        if lane not in self.lanes:
            self.lanes.append(lane)
        return Reading(lane, asks, begun)

    def beside(self, ask: Ask, lane: Lane) -> bool:
        """Whether a prompt can be read with others of a lane, nothing of which has been read before."""
        try:
            return self.lane_of(ask.model) is lane and not lane.known(ask).length
        except Exception:  # noqa: BLE001 - it is told so when its turn comes
            return False

    def write(self, lane: Lane, batch: Batch) -> None:
        began = time.perf_counter()
        rows, heard = list(batch.rows), list[tuple[Row, Piece | Exception]]()
        failed: Exception | None = None
        try:
            lane.step(batch, heard)
        except Exception as error:  # noqa: BLE001 - who asked is told, and the others go on
            failed = error
        self.metrics.wrote(time.perf_counter() - began, len(rows))
        for row in rows:
            self.time(row)
        for row, said in heard:
            if isinstance(said, Piece | Fault):
                self.out.append((row.ask.hear, said))
            else:
                self.fail([row.ask], said)
        if failed:
            whole = {row for row, _ in heard if row.finish}
            lane.lose(batch)
            self.fail([row.ask for row in rows if row not in whole], failed)

    def time(self, row: Row) -> None:
        now = time.monotonic()
        if not row.ask.first:
            row.ask.first = now
            self.metrics.first.add(now - row.ask.asked)
        if row.finish:
            self.metrics.finished[row.finish] += 1

    def fail(self, asks: list[Ask], error: Exception) -> None:
        fault = broken(error)
        for ask in dict.fromkeys(asks):
            if ask.cancelled:  # and has been told, or waits for nothing
                continue
            ask.cancelled = True
            self.metrics.failed += 1
            self.out.append((ask.hear, fault))

    def flush(self) -> None:
        if self.out:
            out, self.out = self.out, []
            self.post(out)


def closing() -> Fault:
    return Fault(503, "the server is shutting down", code="shutting_down", headers={"Retry-After": "10"})


def gone(ask: Ask) -> bool:
    return ask.cancelled or time.monotonic() > ask.until


def deliver(out: list[tuple[Callable[[Any], None], Any]]) -> None:
    for hear, heard in out:
        hear(heard)
