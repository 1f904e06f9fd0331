"""Nobody keeps others waiting for good: templates, long lists of texts, adapters that leave, and a crowd of clients."""

import asyncio
import http.client
import json
import random
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import deepcopy
from urllib.parse import urlsplit

import pytest
from conftest import TEMPLATE, make_tiny
from served import adapter, running, send

from tunesmith.data.rendering.chat_template import ChatTemplate
from tunesmith.serving.pieces import Vectors

CHAT = {"model": "slow", "messages": [{"role": "user", "content": "yes?"}], "max_tokens": 4}
TOOLS = [{"type": "function", "function": {"name": "rate", "parameters": {"type": "object"}}}]
SLOW = (
    "{% if messages[0].content | length > 200 %}"
    "{% for i in range(2000) %}{% for j in range(3000) %}{% endfor %}{% endfor %}{% endif %}"
    "{% if tools and write_tools %}{{ tools | tojson }}{% endif %}"
    "{% if enable_thinking is defined and not enable_thinking %}{{ 'one two three ' }}{% endif %}"
)
"""Takes seconds over a long turn."""


@pytest.fixture(scope="module")
def slow(tmp_path_factory, tokenizer):
    """A server that lets one request be answered and one wait, with a template that takes its time."""
    home = tmp_path_factory.mktemp("slow")
    make_tiny(max_position_embeddings=512).save_pretrained(home / "slow")
    other = deepcopy(tokenizer)
    other.chat_template = SLOW + TEMPLATE
    other.save_pretrained(home / "slow")
    with running(home, model=str(home / "slow"), max_rows=1, queue=1, timeout=1.5) as site:
        yield site


def chat(site, **more):
    return send(site, "/v1/chat/completions", {**CHAT, **more})


def figures(site):
    lines = send(site, "/metrics")[1].splitlines()
    return {name.removeprefix("tunesmith_"): value for name, value in (one.rsplit(" ", 1) for one in lines)}


def quiet(site, **more):
    """Waits until nothing waits or is written."""
    wanted = {"requests_waiting": "0", "requests_running": "0", **more}
    soon(lambda: wanted.items() <= figures(site).items())


def soon(there):
    until = time.monotonic() + 30
    while not there():
        assert time.monotonic() < until
        time.sleep(0.02)


@contextmanager
def beside(*works):
    """Does things in threads meanwhile; each one's result, and when it was there."""
    with ThreadPoolExecutor(len(works)) as pool:
        yield [pool.submit(lambda work=work: (work(), time.monotonic())) for work in works]


def test_who_waits_for_a_template_is_counted_and_waits_no_longer_than_one_may(slow):
    long = [{"role": "user", "content": "x " * 150}]
    with beside(lambda: chat(slow, messages=long)) as [first]:
        time.sleep(0.3)
        with beside(lambda: chat(slow)) as [second]:
            time.sleep(0.2)
            assert chat(slow)[0] == 429
            began = time.monotonic()
            assert send(slow, "/health")[0] == 200 and time.monotonic() - began < 1
    (slowly, last), (waited, end) = first.result(), second.result()
    assert slowly[0] == waited[0] == 504 and waited[1]["error"]["code"] == "timeout"
    assert end < last  # while the template was still at it
    quiet(slow)
    assert chat(slow)[0] == 200


def test_a_template_is_given_what_the_client_says_and_never_in_the_loop_of_events(slow, monkeypatch):
    seen, run = [], ChatTemplate.run

    def watched(self, *given, **more):
        try:
            seen.append(asyncio.get_running_loop())
        except RuntimeError:
            seen.append(None)
        return run(self, *given, **more)

    monkeypatch.setattr(ChatTemplate, "run", watched)
    count = lambda **more: chat(slow, **more)[1]["usage"]["prompt_tokens"]  # noqa: E731
    plain = count()
    assert count(chat_template_kwargs={"enable_thinking": False}) > plain
    assert count(chat_template_kwargs={"enable_thinking": True}) == count(chat_template_kwargs=None) == plain
    status, said, _ = chat(slow, tools=TOOLS)
    assert status == 400 and "does not write them" in said["error"]["message"]
    assert count(tools=TOOLS, chat_template_kwargs={"write_tools": True}) > plain + 10
    for wrong in ({"messages": []}, {"bos_token": "x"}, {"self": 1}, {"x": "y" * 20_000}, {"range": 1e300}, [], "x"):
        status, said, _ = chat(slow, chat_template_kwargs=wrong, messages=[{"role": "user", "content": "x " * 300}])
        assert status == 400 and said["error"]["message"], wrong
    assert len(seen) > 5 and not any(seen)


def test_long_lists_of_texts_take_turns_with_others(slow, site, monkeypatch):
    def embed(texts):
        return send(slow, "/v1/embeddings", {"model": "slow", "input": texts})

    [whole] = embed([list(range(3, 43))])[1]["data"]
    monkeypatch.setattr(Vectors, "largest", 7)
    [cut] = embed([list(range(3, 43))])[1]["data"]
    assert cut["embedding"] == pytest.approx(whole["embedding"], abs=1e-5)
    monkeypatch.undo()
    status, said, _ = send(site, "/v1/embeddings", {"model": "tiny", "input": ["one two"] * 300})
    assert status == 200 and len(said["data"]) == 300
    many = [[5] * 100] * 2048
    with beside(lambda: embed(many)) as [late]:
        time.sleep(0.3)
        answered = chat(slow)
        now = time.monotonic()
    (given_up, end) = late.result()
    assert answered[0] == 200 and now < end
    assert given_up[0] == 504 and given_up[1]["error"]["code"] == "timeout"
    quiet(slow)
    assert embed(["x"] * 2049)[0] == 400
    before = int(figures(slow)["requests_cancelled_total"])
    link = http.client.HTTPConnection(urlsplit(slow).netloc, timeout=60)
    link.request("POST", "/v1/embeddings", json.dumps({"model": "slow", "input": many}))
    time.sleep(0.3)
    leave(link)
    quiet(slow, requests_cancelled_total=str(before + 1))


def leave(link):
    link.sock.shutdown(socket.SHUT_RDWR)
    link.close()


@contextmanager
def known(shelf, **more):
    """A server, and its thread that asks the model."""
    others = set(threading.enumerate())
    with running(shelf, **more) as site:
        yield site, next(one for one in threading.enumerate() if one.name == "tunesmith-model" and one not in others)


def test_an_adapter_leaves_for_good_when_it_has_answered(shelf, tmp_path):
    adapter(tmp_path / "wave", 6, use_dora=True)  # which has rows in batches of its own
    with known(shelf, adapter_root=str(tmp_path), max_rows=1, queue=1) as (site, loop):
        models = loop.lane_of.__self__
        load = lambda: send(site, "/v1/load_lora_adapter", {"lora_name": "wave", "lora_path": "wave"})  # noqa: E731
        unload = lambda: send(site, "/v1/unload_lora_adapter", {"lora_name": "wave"})  # noqa: E731
        assert load()[0] == 200
        link = http.client.HTTPConnection(urlsplit(site).netloc, timeout=60)
        body = {**CHAT, "model": "wave", "max_tokens": 250, "ignore_eos": True, "stream": True}
        link.request("POST", "/v1/chat/completions", json.dumps(body))
        stream = link.getresponse()
        stream.read(10)
        with beside(unload, unload) as works:
            soon(lambda: models.leaving)
            assert chat(site, model="wave")[0] == 404
            assert load()[1]["error"]["code"] == "name_taken" and set(models.leaving) == {"wave"}
            with beside(lambda: chat(site, model="tiny")) as [other]:
                soon(lambda: loop.waiting)
                assert chat(site, model="tiny")[0] == 429  # and what lets go of the adapter asks all the same
                assert stream.read().endswith(b"data: [DONE]\n\n")
        link.close()
        assert [one.result()[0][0] for one in (*works, other)] == [200, 200, 200]
        assert not models.leaving and set(loop.lanes) <= {*models.lanes.values()}
        assert not any(name.startswith("a") for name in models.beside.names)
        assert unload()[0] == 404 and load()[0] == 200


def test_a_crowd_of_which_many_leave_loses_and_mixes_up_nothing(shelf):
    draw = random.Random(0)
    adapters = tuple(f"{name}={shelf / name}" for name in ("red", "blue"))
    jobs = [
        {
            "model": draw.choice(("tiny", "red", "blue")),
            "messages": [{"role": "user", "content": " ".join(draw.choices(("one", "two", "yes", "no"), k=6))}],
            "max_tokens": draw.randint(2, 10),
            "seed": n,
        }
        for n in range(60)
    ]
    leaving = set(draw.sample(range(60), 20))
    with known(shelf, adapters=adapters, max_rows=8) as (site, loop):

        def ask(n):
            if n not in leaving:
                return send(site, "/v1/chat/completions", jobs[n])
            link = http.client.HTTPConnection(urlsplit(site).netloc, timeout=60)
            body = {**jobs[n], "max_tokens": 400, "ignore_eos": True, "stream": True}
            link.request("POST", "/v1/chat/completions", json.dumps(body))
            link.getresponse().read(n)
            leave(link)
            return None

        with ThreadPoolExecutor(16) as pool:
            found = list(pool.map(ask, range(60)))
        quiet(site, requests_cancelled_total=str(len(leaving)))
        assert not loop.waiting and loop.reading is None and loop.coming == 0
        assert loop.lanes and not any(lane.batches for lane in loop.lanes)
        stayed = sorted(set(range(60)) - leaving)
        assert {found[n][0] for n in stayed} == {200}
        for n in stayed[::2]:
            again = send(site, "/v1/chat/completions", jobs[n])[1]
            assert found[n][1]["choices"] == again["choices"], n
