"""What the process that sends notices does: wait until the run has ended, or is gone, and send them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from ..secret import masked
from .base import Ended, Notice, notice

TIMEOUT = 10.0
GONE = "Its process is gone without a word: it was killed, perhaps for memory. `tunesmith runs resume` goes on with it"


class Straight(HTTPRedirectHandler):
    """Follows no redirect: it would make a GET of the message, and show the address to whoever it leads to."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def work(messages: Iterator[dict[str, Any]]) -> None:
    """Send what is due. Raises OSError with what was not taken, when all was tried."""
    begin = next(messages)
    notices = [notice[one.pop("name")](**one | {"when": tuple(one["when"])}) for one in begin["notices"]]
    for number, one in enumerate(notices):
        one.refuse(f"notify.{number}")  # which hides the addresses in this process too
    ended = Ended(begin["run"], "died", GONE, {})
    for message in messages:
        ended = Ended(begin["run"], message["ending"], message["said"], message["figures"])
        break
    due = "failed" if ended.ending == "died" else ended.ending
    faults = [f"{one.name}: {why}" for one in notices if due in one.when and (why := send(one, ended))]
    if faults:
        raise Unsent("; ".join(faults))


class Unsent(OSError):
    """Notices that were not taken."""


def send(one: Notice, ended: Ended) -> str:
    """Send a notice; why it was not taken."""
    body = json.dumps(one.message(ended), ensure_ascii=False).encode()
    try:
        request = Request(one.address(os.environ[one.url_env]), body, {"Content-Type": "application/json"})
        with build_opener(Straight).open(request, timeout=TIMEOUT) as answer:
            said = answer.read(10_000)
    except HTTPError as error:
        return masked(f"HTTP {error.code} {error.read(200).decode(errors='replace')}".strip())
    except (OSError, HTTPException, ValueError) as error:
        return masked(f"{getattr(error, 'reason', None) or error}")
    try:
        known = json.loads(said)
    except ValueError:
        known = None
    return masked(one.refused(known)) if isinstance(known, dict) else ""
