"""Answers on their way: whole, or as server-sent events."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from .answers import Answers
from .fault import CLOSED, Fault, broken
from .visit import left


class Events(Response):
    """Chunks as server-sent events; what was asked is given up when the client leaves."""

    def __init__(self, request: Request, answers: Answers, chunks: Any, usage: bool) -> None:
        super().__init__()
        self.request, self.answers, self.chunks, self.usage = request, answers, chunks, usage

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-accel-buffering", b"no")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        watch = asyncio.create_task(watched(self.request, self.answers))
        last: dict[str, Any] = {}
        try:
            async for last in self.chunks:
                await send({"type": "http.response.body", "body": event(self.worded(last)), "more_body": True})
            if self.usage:
                start = {name: value for name, value in last.items() if name != "choices"}
                used = {**start, "choices": [], "usage": self.answers.usage}
                await send({"type": "http.response.body", "body": event(used), "more_body": True})
            await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": False})
        except Exception as error:  # noqa: BLE001 - who asked is told, and the server goes on
            fault = error if isinstance(error, Fault) else broken(error)
            if fault.status != CLOSED:
                await send({"type": "http.response.body", "body": event(fault.body), "more_body": False})
        finally:
            watch.cancel()
            await self.chunks.aclose()
            if None in self.answers.finish:
                self.answers.leave()

    def worded(self, made: dict[str, Any]) -> dict[str, Any]:
        return {**made, "usage": None} if self.usage else made


async def watched(request: Request, answers: Answers) -> None:
    """Tells the answers when the client has left."""
    await left(request)
    answers.gone()


def event(value: Any) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"


def json_response(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(value), status, headers, "application/json")
