"""Who is let in: by Host, Origin and key, and with how much; before anything of a request is read."""

from __future__ import annotations

import hmac
import logging
import re
import time
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import orjson

from .fault import Fault, broken
from .settings import HOME, Serving

log = logging.getLogger("tunesmith")
OPEN = {"/health"}
"""What needs no key."""
SENT = re.compile(
    r"authorization|content-type|user-agent|openai-(organization|project|beta)|x-stainless-[a-z0-9-]{1,64}"
)
"""Headers that pages may send: what OpenAI's client for browsers does."""


class Door:
    """An ASGI application around the one that answers."""

    def __init__(self, app: Any, settings: Serving, key: str) -> None:
        self.app, self.settings, self.key = app, settings, key.encode()
        self.hosts = {*HOME, "[::1]", settings.host, *settings.allowed_hosts}

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}

        async def said(message: dict[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], *self.allowed(headers)]}
            await send(message)

        fault = await self.answered(scope, headers, receive, said)
        if fault and not status:
            await reply(said, fault.status, orjson.dumps(fault.body), dict(fault.headers))
        log.debug("serve: %s %s %s %.3f s", scope["method"], scope["path"], status, time.perf_counter() - began)

    async def answered(self, scope: dict[str, Any], headers: dict[str, str], receive: Any, said: Any) -> Fault | None:
        """Let a request in; what there is to say where that failed."""
        try:
            self.check(scope, headers)
            if scope["method"] == "OPTIONS" and "origin" in headers:
                await reply(said, 204, b"", {})
            else:
                await self.app(scope, self.bounded(receive), said)
        except Fault as fault:
            return fault
        except Exception as error:  # noqa: BLE001 - who asked is told, and the server goes on
            return broken(error)
        return None

    def check(self, scope: dict[str, Any], headers: dict[str, str]) -> None:
        """Raises Fault for who is not to come in."""
        host = name_of(headers.get("host", ""))
        if not self.called(host):
            raise Fault(403, f"the host '{host[:80]}' is not served here; name it in allowed_hosts", code="host")
        origin = headers.get("origin")
        if origin is not None and not self.same(origin, headers):
            raise Fault(403, "pages of this origin may not ask; name it in allowed_origins", code="origin")
        if self.key and scope["path"] not in OPEN and scope["method"] != "OPTIONS":
            scheme, _, given = headers.get("authorization", "").partition(" ")
            right = hmac.compare_digest(given.strip().encode("utf-8", "replace"), self.key)
            if scheme.lower() != "bearer" or not right:
                asks = {"WWW-Authenticate": "Bearer"}
                raise Fault(401, "the API key is missing or wrong", code="invalid_api_key", headers=asks)
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > self.settings.max_body:
            raise self.large()

    def called(self, host: str) -> bool:
        """Whether the server is called so. A page that leads a browser here under a name of its own is not let in;
        an address is no name, and no page can make one its own."""
        if {"*", host} & self.hosts:
            return True
        try:
            return self.settings.host not in HOME and bool(ip_address(host.strip("[]")))
        except ValueError:
            return False

    def same(self, origin: str, headers: dict[str, str]) -> bool:
        """Whether a page is this server's own, or one that is let in."""
        if origin in self.settings.allowed_origins or "*" in self.settings.allowed_origins:
            return True
        try:
            return origin != "null" and urlsplit(origin).netloc.lower() == headers.get("host", "").lower()
        except ValueError:  # no address at all
            return False

    def allowed(self, headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
        """What a browser wants to hear."""
        sure = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]
        origin = headers.get("origin")
        if origin is None or not {origin, "*"} & {*self.settings.allowed_origins}:
            return sure
        return [
            *sure,
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-allow-methods", b"GET, POST"),
            (b"access-control-allow-headers", sendable(headers.get("access-control-request-headers", "")).encode()),
            (b"vary", b"origin"),
        ]

    def large(self) -> Fault:
        return Fault(413, f"the body is larger than {self.settings.max_body} bytes", code="body_too_large")

    def bounded(self, receive: Any) -> Any:
        """What is received, up to so many bytes, whatever its length was said to be."""
        size = 0

        async def bounded() -> Any:
            nonlocal size
            message = await receive()
            if message["type"] == "http.request":
                size += len(message.get("body", b""))
                if size > self.settings.max_body:
                    raise self.large()
            return message

        return bounded


def sendable(asked: str) -> str:
    """The headers that a page may send, of those that a browser asks for."""
    names = [name for one in asked.split(",") if SENT.fullmatch(name := one.strip().lower())]
    return ", ".join(dict.fromkeys(["authorization", "content-type", *names]))


def name_of(host: str) -> str:
    """A host without its port."""
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0].lower()


async def reply(send: Any, status: int, body: bytes, headers: dict[str, str]) -> None:
    known = {"content-type": "application/json", "content-length": str(len(body)), **headers}
    pairs = [(name.lower().encode(), value.encode("latin-1")) for name, value in known.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
