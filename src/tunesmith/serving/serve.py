"""From settings to a server that answers, and to its end."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from ..errors import BadEnvironment, Refusal
from .settings import HOME, KEY, Serving

log = logging.getLogger("tunesmith")


Ready = Callable[[str, Callable[[], None]], Any]
"""Is told the address, and how to have it end."""


def serve(settings: Serving, ready: Ready = lambda address, stop: None) -> None:
    """Answer until a signal comes; then answer what was asked, and end."""
    key = os.environ.get(KEY, "").strip()
    settings.refuse(key)
    if settings.engine == "vllm":
        from .by_vllm import hand_over

        hand_over(settings, key)
    needed()
    with listening(settings.host, settings.port) as door, ExitStack() as stack:
        from ..machine import settle_in
        from .app import Site
        from .loop import Loop
        from .metrics import Metrics
        from .models import Models
        from .store import Store

        store = stack.enter_context(closing(Store(Path(settings.feedback)))) if settings.feedback else None
        settle_in()
        models = Models(settings)
        loop = Loop(settings, models.lane, Metrics(), models.holds)
        app = Site(settings, models, loop, store).app(key)
        loop.start()
        stack.callback(loop.join, settings.timeout)
        stack.callback(loop.drain)
        host, port = door.getsockname()[:2]
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        log.info("serving %s at %s/v1", ", ".join(models.served), address)
        if models.tuned is None:
            log.info("answers being written may come to %s tokens together, prompts included", f"{models.holds:,}")
        if settings.host not in HOME:
            log.info("what is sent is not encrypted here; put a proxy with TLS before it")
        asyncio.run(answer(app, settings, door, loop, lambda stop: ready(address, stop)))


async def answer(app: Any, settings: Serving, door: socket.socket, loop: Any, ready: Callable[[Any], Any]) -> None:
    """Answer until a signal comes, or until all is stopped by what `ready` is given."""
    import uvicorn

    class Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Iterator[None]:  # uvicorn's own would kill the process once it has drained
            yield

    config = uvicorn.Config(
        app, log_config=None, access_log=False, server_header=False, lifespan="on", ws="none", loop="asyncio",
        http="h11", h11_max_incomplete_event_size=1 << 16, timeout_keep_alive=30,
        timeout_graceful_shutdown=int(settings.timeout) + 1,
    )  # fmt: skip
    server, events = Server(config), asyncio.get_running_loop()

    def stop() -> None:
        server.force_exit = server.should_exit  # the second time there is no patience left
        server.should_exit = True
        loop.drain()

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            events.add_signal_handler(number, stop)
    task = asyncio.create_task(server.serve(sockets=[door]))
    while not server.started and not task.done():
        await asyncio.sleep(0.01)
    ready(lambda: events.call_soon_threadsafe(stop))
    while not task.done():
        if not loop.is_alive() and not loop.draining:
            stop()
            await task
            raise Refusal("the thread that asks the model has ended; --debug shows where")
        await asyncio.sleep(0.1)
    await task


def needed() -> None:
    """Raises BadEnvironment where a package is missing."""
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise BadEnvironment(f"serve needs {error.name}: pip install 'tunesmith[serve]'") from None


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens, before anything is loaded, so that a second server on a port is told at once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    door = socket.socket(family, socket.SOCK_STREAM)
    try:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind((host, port))
        door.listen(2048)
    except (OSError, OverflowError) as error:
        door.close()
        if getattr(error, "errno", None) == errno.EADDRINUSE:
            raise BadEnvironment(f"port: {port} is taken on {host}; stop what listens there, or take another") from None
        raise BadEnvironment(
            f"host: cannot listen on {host}:{port} ({error}); name an address of this machine"
        ) from None
    return door
