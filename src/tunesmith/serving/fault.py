"""What a client is told when it cannot be had, in OpenAI's shape."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from ..secret import masked

log = logging.getLogger("tunesmith")

CLOSED = 499
"""What is noted when the client has left; nobody reads it."""


class Fault(Exception):
    """One sentence, the status, and what OpenAI's clients look at: type, param and code."""

    def __init__(
        self, status: int, sentence: str, param: str | None = None, code: str | None = None, headers: Any = None
    ) -> None:
        super().__init__(masked(sentence))
        self.status, self.param, self.code = status, param, code
        self.headers: Mapping[str, str] = headers or {}

    @property
    def type(self) -> str:
        """OpenAI's name of the kind."""
        if self.status == 401:
            return "authentication_error"
        if self.status == 403:
            return "permission_error"
        if self.status == 429:
            return "rate_limit_error"
        return "server_error" if self.status >= 500 else "invalid_request_error"

    @property
    def body(self) -> dict[str, Any]:
        return {"error": {"message": str(self), "type": self.type, "param": self.param, "code": self.code}}


def bad(sentence: str, param: str | None = None, code: str | None = None) -> Fault:
    """A request that cannot be used."""
    return Fault(400, sentence, param, code)


def late(seconds: float) -> Fault:
    """A request that took longer than one may; asked again at once, it would take as long."""
    again = {"x-should-retry": "false"}
    return Fault(504, f"not finished within {seconds:g} s; ask for fewer tokens", code="timeout", headers=again)


def broken(error: Exception) -> Fault:
    """What went wrong here, without what was asked; so it is logged too, and where it was if that is wanted."""
    from ..model.load import memory_error

    log.error("serve: %s", type(error).__name__, exc_info=error if log.isEnabledFor(logging.DEBUG) else None)
    if memory_error(error):
        return Fault(503, "out of memory; ask for less, or later", code="overloaded", headers={"Retry-After": "5"})
    return Fault(500, f"the server failed with {type(error).__name__}", code="internal_error")
