"""One request on its way: until when it may take, whether its client still waits, and texts that become tokens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from starlette.requests import Request

from ..data.rendering.tokens import NoTarget
from ..errors import DataError
from .answers import check_letters
from .fault import CLOSED, Fault, bad, late
from .loop import Loop
from .row import Ask

T = TypeVar("T")


class Visit:
    """A request that has been let in."""

    def __init__(self, request: Request, loop: Loop) -> None:
        self.loop, self.seconds, self.began = loop, loop.limits.timeout, time.monotonic()
        self.gone = asyncio.create_task(left(request))

    def timed(self, ask: Ask) -> Ask:
        """What the model is asked, with the time of the whole request as its own."""
        ask.asked, ask.until = self.began, self.began + self.seconds
        return ask

    async def within(self, work: Awaitable[T]) -> T:
        """What comes of something. Raises Fault where it takes too long, or nobody waits for it any more."""
        task = asyncio.ensure_future(work)
        try:
            rest = self.began + self.seconds - time.monotonic()
            await asyncio.wait({task, self.gone}, timeout=max(0.0, rest), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            if self.gone.done():
                raise Fault(CLOSED, "the client has left")
            raise late(self.seconds)
        finally:
            task.cancel()

    async def done(self, work: Callable[[], T]) -> T:
        """What comes of something that the model's thread does between two passes. Raises Fault."""
        try:
            return await self.within(asyncio.wrap_future(self.loop.call(work)))
        except DataError as error:
            raise bad(str(error)) from None


@asynccontextmanager
async def visiting(request: Request, loop: Loop, count: int = 1) -> AsyncIterator[Visit]:
    """Let a request in: within it, it counts as `count` of those that wait. Raises Fault where too many do."""
    with loop.admitted(count):
        visit = Visit(request, loop)
        try:
            yield visit
        except Fault as fault:
            loop.metrics.cancelled += fault.status == CLOSED
            loop.metrics.late += fault.status == 504
            raise
        finally:
            visit.gone.cancel()


async def left(request: Request) -> None:
    """Ends when the client has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


class Desk:
    """Where texts become tokens, beside the loop of events. Tokenizers and chat templates take one at a time."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()

    async def encode(self, visit: Visit, work: Callable[[], T], where: str, text: str = "") -> T:
        """What is made of texts. Raises Fault where the template refuses, or others keep it waiting too long."""
        check_letters(text, where)
        await visit.within(self.lock.acquire())
        try:
            return await asyncio.to_thread(work)
        except (DataError, NoTarget) as error:
            raise bad(f"'{where}': {error}", where) from None
        except UnicodeEncodeError:
            raise bad(f"'{where}': holds half of a character, for which there is no token", where) from None
        finally:
            self.lock.release()
