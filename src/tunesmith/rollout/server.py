"""A judge behind an address that speaks OpenAI's language: asked with patience, and never told more than it must be."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, ProxyHandler, Request, build_opener

from ..errors import BadEnvironment
from ..rewards._settings import HOME, Judge
from ..rewards.base import Turn, Unscored
from ..secret import without
from .question import Question

LARGEST = 4 << 20
"""Bytes of an answer."""
LONGEST_WAIT = 600.0
"""Seconds that a server may ask for; who asks for more is told good-bye."""
IN_A_ROW = 8
"""So many questions that get no answer, one after the other, end it all."""
AGAIN = {408, 409, 425, 429}
UNKNOWN_FORM = {400, 404, 415, 422, 501}
"""What servers say that do not know response_format."""
OF_ONE = {400, 413, 422}
"""What they say of a question that is too long, or that a filter keeps from the model."""


LIMITS = ("max_tokens", "max_completion_tokens")
"""What servers call the longest answer; OpenAI's newer models refuse the older name."""


class Stay(HTTPRedirectHandler):
    """Follows nowhere: the key is for one address."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> None:
        return None


class Failed(Exception):
    """Why a question got no answer this time, and how long the server asks to wait."""

    def __init__(self, why: str, wait: float = 0.0, code: int = 0) -> None:
        super().__init__(why)
        self.wait, self.code = wait, code


class Nonsense(Failed):
    """What was wrong with the answer; the judge is told when it is asked again."""


class Declined(Failed):
    """What the server has against this one question, and would have again."""


@dataclass
class Account:
    """What was asked, and what it cost."""

    asked: int = 0
    """Requests, those that failed too."""
    failed: int = 0
    """Requests without an answer that can be used."""
    kept: int = 0
    """Questions that were answered from what is kept."""
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def count(self, **more: float) -> None:
        with self.lock:
            for name, value in more.items():
                setattr(self, name, getattr(self, name) + value)

    def as_json(self) -> dict[str, float]:
        return {name: value for name, value in vars(self).items() if name != "lock"}


@dataclass
class Server:
    """The judge's address."""

    judge: Judge
    account: Account
    next_slot: float = 0.0
    unanswered: int = 0
    heard: bool = False
    """Whether it has answered any question: its settings are then well."""
    constrained: bool = True
    """Whether the server is told the form of answers as a schema."""
    limit: str = LIMITS[0]
    """What the server calls the longest answer."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    stopping: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.constrained = self.judge.constrain != "words"
        self.host = urlsplit(str(self.judge.url)).hostname or ""
        self.key = os.environ.get(self.judge.api_key_env, "").strip()
        if not self.key and self.host not in HOME:
            raise BadEnvironment(
                f"judge.api_key_env: {self.judge.api_key_env} is not set; put the key for {self.host} into it"
            )
        proxies = [ProxyHandler({})] if self.host in HOME else []
        self.opener: OpenerDirector = build_opener(Stay, *proxies)

    def identity(self) -> dict[str, Any]:
        """What of it decides an answer."""
        return {"url": str(self.judge.url).rstrip("/"), "model": self.judge.model}

    def ask(self, questions: Sequence[Question]) -> list[str | int | Unscored]:
        """The verdict on each, several asked at once; why there is none, where all patience was in vain."""
        self.stopping.clear()
        pool = ThreadPoolExecutor(self.judge.parallel)
        try:
            return list(pool.map(self.answer, questions))
        except BaseException:
            self.stopping.set()  # those that wait for better times need not
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def answer(self, question: Question) -> str | int | Unscored:
        why = mend = ""
        for tried in range(self.judge.retries + 1):
            if self.unanswered >= IN_A_ROW or self.stopping.is_set():
                return Unscored("the judge was not asked, for it had stopped answering")
            try:
                verdict = self.attempt(question, mend)
                self.unanswered, self.heard = 0, True
                return verdict
            except Declined as declined:
                self.account.count(failed=1)
                return Unscored(f"the judge gave no answer: {declined}")
            except Failed as failed:
                self.account.count(failed=1)
                why, mend = str(failed), str(failed) if isinstance(failed, Nonsense) else ""
                if tried < self.judge.retries:
                    self.stopping.wait(max(failed.wait, self.judge.backoff * 2**tried * random.uniform(1, 1.5)))
        with self.lock:
            self.unanswered += 1
        return Unscored(f"the judge gave no answer: {why}")

    def check(self) -> None:
        """Stop where the server has stopped answering."""
        if self.unanswered >= IN_A_ROW:
            raise BadEnvironment(
                f"judge.url: {self.judge.url} left {IN_A_ROW} questions in a row without an answer; what was"
                " answered is kept: begin again when it is well"
            )

    def attempt(self, question: Question, before: str) -> str | int:
        """Ask once. `before` is what was wrong with the answer before."""
        turns = question.asked()
        if before:
            turns[-1]["content"] += f"\n\n(An answer before this one was of no use: it {before}.)"
        told = self.constrained
        try:
            text = self.said(self.post(self.body(turns, question if told else None)))
        except Failed as failed:
            if failed.code not in UNKNOWN_FORM:
                raise
            if LIMITS[1] in str(failed):
                self.limit = LIMITS[1]
                raise
            text = self.said(self.post(self.body(turns, None)))
            self.constrained = False  # only now is it known that the form was the trouble
        try:
            return question.read(text)
        except ValueError as error:
            raise Nonsense(str(error)) from None

    def body(self, turns: list[Turn], question: Question | None) -> dict[str, Any]:
        judge = self.judge
        made: dict[str, Any] = {"model": judge.model, "messages": turns, self.limit: judge.max_tokens}
        if judge.temperature is not None:
            made["temperature"] = judge.temperature
        if question:
            form = {"name": "verdict", "strict": True, "schema": question.schema}
            made["response_format"] = {"type": "json_schema", "json_schema": form}
        return made

    def said(self, answer: Any) -> str:
        """The text of an answer, whose tokens are accounted for."""
        try:
            text = answer["choices"][0]["message"]["content"]
            used = answer.get("usage") or {}
            tokens = [int(used.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")]
            prices = (self.judge.price_in, self.judge.price_out)
            cost = sum(count * price for count, price in zip(tokens, prices, strict=True)) / 1e6
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError):
            raise Failed("answered with something that is no chat completion") from None
        self.account.count(tokens_in=tokens[0], tokens_out=tokens[1], cost=cost)
        if not isinstance(text, str):
            raise Failed("answered without a text")
        return text

    def post(self, body: dict[str, Any]) -> Any:
        """What the server answers to one request, as JSON. Raises Failed, or BadEnvironment where no patience helps."""
        self.wait_for_slot()
        self.account.count(asked=1)
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        headers |= {"Authorization": f"Bearer {self.key}"} if self.key else {}
        address = f"{str(self.judge.url).rstrip('/')}/chat/completions"
        request = Request(address, json.dumps(body).encode(), headers, method="POST")
        try:
            with self.opener.open(request, timeout=self.judge.timeout) as answer:
                return json.loads(self.hidden(self.body_of(answer)))
        except HTTPError as error:
            with error:
                raise self.worded(error, "response_format" in body) from None
        except TimeoutError:
            raise Failed(f"took longer than {self.judge.timeout:g} s") from None
        except (URLError, OSError, HTTPException) as error:
            why = getattr(error, "reason", None) or error
            raise Failed(self.hidden(f"could not be reached: {type(why).__name__}: {why}")) from None
        except (ValueError, RecursionError):
            raise Failed("broke off, or is no JSON") from None

    def body_of(self, answer: Any) -> str:
        """All that a server sends, within bounds of time and length."""
        until, parts, size = time.monotonic() + self.judge.timeout, [], 0
        while part := answer.read1(1 << 16):
            parts.append(part)
            size += len(part)
            if time.monotonic() > until:
                raise TimeoutError
            if size > LARGEST:
                raise Failed(f"is longer than {LARGEST >> 20} MiB")
        if getattr(answer, "length", 0):  # read1 says nothing of an end that comes too early
            raise Failed("broke off in the middle")
        return b"".join(parts).decode("utf-8", "replace")

    def worded(self, error: HTTPError, formed: bool) -> Exception:
        """What an answer that is none means, to a question with its form or without: something to wait for, to mend, or
        to leave."""
        try:
            said = self.hidden(error.read(1 << 16).decode("utf-8", "replace"))
        except (OSError, HTTPException):
            said = ""
        brief, code = " ".join(said.split())[:200], error.code
        if code in AGAIN | set(range(500, 600)) - {501} and "insufficient_quota" not in said:
            wait = retry_after(error.headers.get("Retry-After"))
            if wait > LONGEST_WAIT:
                return BadEnvironment(f"judge.url: {self.judge.url} asks to wait {wait:.0f} s; begin again then")
            return Failed(f"was refused with {code} {brief}".rstrip(), wait)
        renamed, unsure = (
            LIMITS[1] in said and self.limit == LIMITS[0],
            self.constrained and self.judge.constrain == "auto",
        )
        if code in OF_ONE and (self.heard or self.account.kept) and not (renamed or (unsure and formed)):
            return Declined(f"was refused with {code} {brief}")
        if code in UNKNOWN_FORM and (renamed or unsure):
            return Failed(f"was refused with {code} {brief}", code=code)
        return BadEnvironment(f"judge.url: {self.judge.url} refuses with {code}: {brief}; {advice(code, self.judge)}")

    def hidden(self, text: str) -> str:
        """A text without the key, should a server say it back, whatever the variable is called."""
        return without(text, self.key)

    def wait_for_slot(self) -> None:
        """Wait until one more question is within requests_per_minute."""
        if self.judge.requests_per_minute is None:
            return
        with self.lock:
            now = time.monotonic()
            slot = max(now, self.next_slot)
            self.next_slot = slot + 60 / self.judge.requests_per_minute
        self.stopping.wait(slot - now)


def retry_after(said: str | None) -> float:
    """The seconds that a server asks to wait: a number of them, or a date."""
    if not said:
        return 0.0
    try:
        return max(0.0, float(said))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(said).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


def advice(code: int, judge: Judge) -> str:
    if code in (401, 403):
        return f"see whether {judge.api_key_env} holds the right key"
    if 300 <= code < 400:
        return "it leads elsewhere, and the key is for one address; name the right one"
    if code == 404:
        return f"see whether it ends with /v1, and knows the model {judge.model}"
    return "mend the judge's settings"
