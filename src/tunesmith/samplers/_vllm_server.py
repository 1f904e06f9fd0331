"""vLLM behind an address: `vllm serve`, by OpenAI's completions with tokens in and out, and vLLM's own addresses for
what has been learnt."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.client import HTTPException
from itertools import repeat
from math import isfinite
from pathlib import Path
from threading import Event
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from ..errors import BadEnvironment, RecipeError, Refusal
from ._vllm import Learnt, Place, sampling
from .base import Drawn, How, Pupil

KEY = "VLLM_API_KEY"
"""The variable of the environment with the key, as vLLM itself calls it."""
AT_ONCE = 64
"""Prompts that are asked at once; vLLM writes the answers to them together."""
WAITS = (1.0, 5.0, 15.0)
"""Seconds before a prompt is asked again that a server which is otherwise well did not answer."""
BUSY = {408, 429, 500, 502, 503, 504}
LONGEST = 256 << 20
"""Bytes of an answer."""
ADAPTERS = "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 vllm serve MODEL --enable-lora"
WEIGHTS = "VLLM_SERVER_DEV_MODE=1 vllm serve MODEL"


class Straight(HTTPRedirectHandler):
    """Follows no redirect: the key is for one address."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class Refused(Refusal):
    """What a server said instead of an answer, and the code that it said it with."""

    def __init__(self, status: int, said: str, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.said = status, said


class Server:
    """An address, and what may be asked of it."""

    def __init__(self, url: str, timeout: float | None) -> None:
        self.url, self.timeout = url.rstrip("/").removesuffix("/v1"), timeout or 600.0
        self.key = os.environ.get(KEY, "").strip()
        home = (urlsplit(url).hostname or "") in ("127.0.0.1", "::1", "localhost")
        self.opener = build_opener(Straight, *([ProxyHandler({})] if home else []))

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """What the server answers, as JSON, or as text where it is none. Raises Refused, or BadEnvironment where there
        is no answer."""
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        data = None if body is None else json.dumps(body).encode()
        try:
            request = Request(self.url + path, data, headers)
            with self.opener.open(request, timeout=self.timeout) as answer:
                text = self.hidden(answer.read(LONGEST))
        except HTTPError as error:
            with error, suppress(OSError, HTTPException):
                said = " ".join(self.hidden(error.read(1 << 16)).split())
                raise Refused(error.code, said, self.worded(path, error.code, said)) from None
            raise self.silent(path, error) from None
        except (URLError, OSError, HTTPException, ValueError) as error:
            raise self.silent(path, error) from None
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return text

    def silent(self, path: str, error: Exception) -> BadEnvironment:
        why = self.hidden(str(getattr(error, "reason", None) or error or type(error).__name__).encode())
        return BadEnvironment(
            f"objective.sampler.url: {self.url}{path} gives no answer ({why}); see whether `vllm serve` runs there,"
            " then go on with --resume, or set objective.sampler=exact"
        )

    def worded(self, path: str, status: int, said: str) -> str:
        advice = f"see whether {KEY} holds its key" if status in (401, 403) else "mend that, then go on with --resume"
        return f"objective.sampler.url: {self.url}{path} refuses with {status}: {said[:300]}; {advice}"

    def hidden(self, said: bytes) -> str:
        """A text without the key, should a server say it back."""
        text = said.decode("utf-8", "replace")
        return text.replace(self.key, "***") if self.key else text

    def models(self) -> list[dict[str, Any]]:
        """What /v1/models lists."""
        said = self.ask("/v1/models")
        listed = said.get("data") if isinstance(said, dict) else None
        if not isinstance(listed, list) or not all(isinstance(one, dict) and "id" in one for one in listed):
            raise BadEnvironment(f"objective.sampler.url: {self.url}/v1/models lists no models; name a `vllm serve`")
        return listed

    def base(self, served: str | None, paths: tuple[str, Path]) -> str:
        """What the server calls the base. Raises RecipeError where it serves another."""
        listed = [one for one in self.models() if not one.get("parent")]
        for one in listed:
            if one["id"] == served or (not served and is_base({one["id"], one.get("root")}, paths)):
                return one["id"]
        there = ", ".join(f"{one['id']} (of {one.get('root')})" for one in listed)
        wanted = f"none named {served}" if served else f"not {paths[0]}"
        raise RecipeError(
            f"objective.sampler.url: {self.url} serves {there or 'nothing'}, and {wanted}; begin it with this run's"
            " base, or name in objective.sampler.served_model what it calls the base"
        )

    def may(self, whole: bool) -> None:
        """Refuse a server that cannot be given what has been learnt; what is asked of it here changes nothing."""
        path, body = ("/reset_prefix_cache", {}) if whole else ("/v1/unload_lora_adapter", {"lora_name": "tunesmith-0"})
        try:
            self.ask(path, body)
        except Refused as error:
            if "tunesmith-0" in error.said:  # it would unload one that is there
                return
            if error.status not in (404, 405):
                raise
            lacks, begin = ("weights", WEIGHTS) if whole else ("adapters", ADAPTERS)
            raise BadEnvironment(
                f"objective.sampler.url: {self.url} takes no {lacks} while it serves; begin it with {begin}"
            ) from None

    def scaled(self, model: str) -> bool | None:
        """Whether it tells log-probabilities after the temperature; None where that makes no difference."""
        asked = {"model": model, "prompt": [1, 2], "max_tokens": 1, "logprobs": 1}
        usual, warm = (
            self.ask("/v1/completions", asked | {"temperature": temperature})["choices"][0]["logprobs"]
            for temperature in (1.0, 2.0)
        )
        apart = max(usual["top_logprobs"][0].values()) - max(warm["top_logprobs"][0].values())
        return abs(apart) > 1e-4


def is_base(names: set[str | None], paths: tuple[str, Path]) -> bool:
    """Whether a name or a folder is that of the base, as the recipe has it or as it lies here."""
    asked, folder = paths
    return asked in names or any(name and Path(name).resolve() == folder.resolve() for name in names)


def refuse_server(said: Place, paths: tuple[str, Path], whole: bool, how: How) -> None:
    """Refuse a server that has another base, or could not draw as is asked."""
    from .vllm import cut

    server = Server(str(said.url), said.timeout)
    model = server.base(said.served_model, paths)
    server.may(whole)
    if how.temperature == 1 and not cut(how):
        return  # before or after the temperature, it is the same
    mode = "processed_logprobs" if how.temperature != 1 else "raw_logprobs"
    if server.scaled(model) != (how.temperature != 1):
        raise BadEnvironment(
            f"objective.sampler.url: {server.url} tells other log-probabilities than these settings need; begin it with"
            f" --logprobs-mode {mode}, or leave temperature, top_p, top_k and min_p out"
        )


class Served:
    """Draws answers behind an address."""

    def __init__(self, said: Place, pupil: Pupil) -> None:
        self.server = Server(str(said.url), said.timeout)
        self.base = self.server.base(said.served_model, (pupil.name, pupil.base))
        self.stops, self.learnt, self.folder = pupil.stops, Learnt(pupil), pupil.base.resolve()
        self.over = Event()
        """Whether one prompt got no answer, so that the others need none."""

    def __call__(self, prompts: Sequence[list[int]], how: How, seed: int, size: int = 1) -> list[Drawn]:
        asked = [
            {"prompt": prompt, "return_token_ids": True} | sampling(how, self.stops, size, seed, number)
            for number, prompt in enumerate(prompts)
        ]
        with self.taught() as model, ThreadPoolExecutor(AT_ONCE) as pool:
            try:
                answers = list(pool.map(self.answers, repeat(model), asked))
            except BaseException:
                self.over.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return [one for group in answers for one in group]

    @contextmanager
    def taught(self) -> Iterator[str]:
        """Within it the server has what has been learnt until now, under this name."""
        with self.learnt.written() as folder:
            if not self.learnt.adapter:
                self.reload(folder)
                yield self.base
                return
            self.server.ask("/v1/load_lora_adapter", {"lora_name": folder.name, "lora_path": str(folder)})
            try:
                yield folder.name
            finally:
                with suppress(Refusal):  # the next one has another name
                    self.server.ask("/v1/unload_lora_adapter", {"lora_name": folder.name})

    def answers(self, model: str, asked: dict[str, Any]) -> list[Drawn]:
        """The answers to one prompt; asked again where the server is busy."""
        for wait in (*WAITS, None):
            try:
                said = self.server.ask("/v1/completions", {"model": model} | asked)
                choices = sorted(said["choices"], key=lambda one: one["index"])
                return [drawn(choices[at]) for at in range(asked["n"])]
            except Refusal as error:
                if wait is None or getattr(error, "status", 503) not in BUSY or self.over.wait(wait):
                    raise
            except (LookupError, TypeError, OverflowError):
                break
        raise BadEnvironment(
            f"objective.sampler.url: {self.server.url}/v1/completions answers without token_ids and token_logprobs;"
            " take a newer vLLM (return_token_ids)"
        )

    def reload(self, folder: Path) -> None:
        """Have the server take other weights for its own."""
        self.server.ask("/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}})
        self.server.ask("/reset_prefix_cache", {})  # what it remembers of prompts is the former weights'

    def close(self) -> None:
        if self.learnt.number and not self.learnt.adapter:
            with suppress(Refusal):  # it is to serve the base that it says it serves
                self.reload(self.folder)
        self.learnt.close()


def drawn(choice: dict[str, Any]) -> Drawn:
    """An answer. Raises LookupError where it is not whole."""
    ids, logp = choice["token_ids"], choice["logprobs"]["token_logprobs"]
    whole = len(ids) == len(logp) > 0 and all(map(isfinite, logp))
    if not whole or choice["finish_reason"] not in ("stop", "length"):
        raise LookupError
    return Drawn(list(ids), [float(one) for one in logp], choice["finish_reason"] == "stop")
