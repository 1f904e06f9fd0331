"""What the server refuses, in OpenAI's shape: what cannot be, what is too much, and who may not ask."""

import asyncio
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
from served import running, send

from tunesmith.cli import main
from tunesmith.errors import BadEnvironment, CheckpointError, RecipeError
from tunesmith.serving.judged import keeper
from tunesmith.serving.serve import serve
from tunesmith.serving.settings import Serving
from tunesmith.serving.speech import Speech, first_call
from tunesmith.serving.wire import Chat, parsed

ASKED = [{"role": "user", "content": "yes?"}]
LONG = "context_length_exceeded"
PICTURE = {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}
TOOL = {"type": "function", "function": {"name": "f"}}
CHAT = {"model": "tiny", "messages": ASKED, "max_tokens": 4}


DEEP = b'{"model": "tiny", "messages": ' + b"[" * 900 + b"]" * 900 + b"}"
WRONG = {
    "no such model": ({**CHAT, "model": "gpt"}, 404, "model", "model_not_found"),
    "no model": ({"messages": ASKED}, 400, "model", None),
    "unknown field": ({**CHAT, "temprature": 1}, 400, "temprature", "unknown_parameter"),
    "not done here": ({**CHAT, "modalities": ["audio"]}, 400, "modalities", "unsupported_parameter"),
    "no json": (b"{", 400, None, None),
    "no object": ([1], 400, None, None),
    "half a letter": ({**CHAT, "messages": [{"role": "user", "content": "\ud800"}]}, 400, None, None),
    "hot": ({**CHAT, "temperature": "hot"}, 400, "temperature", None),
    "cold": ({**CHAT, "temperature": -1}, 400, "temperature", None),
    "true": ({**CHAT, "max_tokens": True}, 400, "max_tokens", None),
    "none at all": ({**CHAT, "max_tokens": 0}, 400, "max_tokens", None),
    "too many tokens": ({**CHAT, "max_tokens": 100_000}, 400, "max_tokens", None),
    "too long": ({**CHAT, "messages": [{"role": "user", "content": "xyz " * 600}]}, 400, "messages", LONG),
    "too many answers": ({**CHAT, "n": 99}, 400, "n", None),
    "no messages": ({**CHAT, "messages": []}, 400, "messages", None),
    "no role": ({**CHAT, "messages": [{"content": "x"}]}, 400, "messages.0.role", None),
    "strange role": ({**CHAT, "messages": [{"role": "wizard", "content": "x"}]}, 400, "messages", None),
    "an image": ({**CHAT, "messages": [{"role": "user", "content": [PICTURE]}]}, 400, "messages.0.content", None),
    "long stop": ({**CHAT, "stop": "x" * 65}, 400, "stop", None),
    "strange bias": ({**CHAT, "logit_bias": {"99999": 1}}, 400, "logit_bias", None),
    "endless bias": ({**CHAT, "logit_bias": {"1" * 4301: 1}}, 400, "logit_bias", None),
    "logprobs": ({**CHAT, "top_logprobs": 3}, 400, "top_logprobs", None),
    "no stream": ({**CHAT, "stream_options": {"include_usage": True}}, 400, "stream_options", None),
    "strange form": ({**CHAT, "response_format": {"type": "xml"}}, 400, "response_format.type", None),
    "no tools": ({**CHAT, "tool_choice": "required"}, 400, "tool_choice", None),
    "strange choice": ({**CHAT, "tools": [TOOL], "tool_choice": {"function": "f"}}, 400, "tool_choice", None),
    "listed choice": ({**CHAT, "tools": [TOOL], "tool_choice": {"function": {"name": []}}}, 400, "tool_choice", None),
    "deep": (DEEP, 400, None, None),
    "deeper": (b"[" * 100_000, 400, None, None),
}  # fmt: skip


def test_each_mistake_is_answered_in_openais_shape(site):
    for name, (body, status, param, code) in WRONG.items():
        got, said, _ = send(site, "/v1/chat/completions", body)
        assert got == status, (name, said)
        error = said["error"]
        assert error.keys() == {"message", "type", "param", "code"} and error["message"], name
        assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, code), (name, error)
    assert send(site, "/v1/nothing")[:2] == (404, {"error": {
        "message": "there is no such address", "type": "invalid_request_error", "param": None, "code": "not_found",
    }})  # fmt: skip
    assert send(site, "/v1/chat/completions")[0] == 405
    assert send(site, "/v1/score", {"model": "tiny", "input": "x"})[0] == 400
    assert send(site, "/v1/completions", {"model": "tiny", "prompt": [1, 10_000]})[0] == 400
    assert send(site, "/v1/embeddings", {"model": "tiny", "input": ""})[0] == 400
    assert send(site, "/v1/chat/completions", CHAT)[0] == 200


def test_what_nobody_foresaw_is_told_in_openais_shape_streamed_too(site, monkeypatch):
    def broken(*_):
        raise KeyError("a secret")

    monkeypatch.setattr(Speech, "message", broken)
    told = {"message": "the server failed with KeyError", "type": "server_error", "param": None}
    told = {"error": {**told, "code": "internal_error"}}
    assert send(site, "/v1/chat/completions", CHAT)[:2] == (500, told)
    status, said, _ = send(site, "/v1/chat/completions", {**CHAT, "stream": True})
    last = said.strip().split("\n\n")[-1].removeprefix("data: ")
    assert status == 200 and json.loads(last) == told


def test_numbers_and_depths_that_json_has_no_end_of(caplog):
    deep = '{"a": ' + "[" * 100_000
    assert first_call(deep, {"f"}) is None
    assert first_call('{"x": {"name": "f", "arguments": {}}}', {"f"}) == (6, 36, {"name": "f", "arguments": {}})
    asked = [{"messages": ASKED, "tools": [{"maximum": 10**30}]}]
    who: Any = parsed(Chat, json.dumps(CHAT).encode()), None
    with caplog.at_level("INFO", "tunesmith"):
        keep = keeper(Serving(model="x", log_prompts=True), None, who, asked, SimpleNamespace(finish=["stop"]))
        asyncio.run(keep([({"content": "well"}, None)]))
    assert str(10**30) in caplog.text and "well" in caplog.text


def test_what_its_document_allows_never_breaks_it(site):
    """Bodies made by the document's own types, right and wrong, at random."""
    draw, document = random.Random(0), send(site, "/openapi.json")[1]
    values = [
        "x",
        "",
        -1,
        0,
        1,
        2.5,
        True,
        None,
        [],
        ["x"],
        [1],
        [[1, 2]],
        {},
        {"type": "text"},
        {"role": "user"},
        ASKED,
    ]
    for path, ways in document["paths"].items():
        if "post" not in ways:
            continue
        schema = ways["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert schema["additionalProperties"] is False
        for _ in range(40):
            chosen = draw.choices(sorted(schema["properties"]), k=draw.randint(1, 4))
            body = {name: draw.choice(values) for name in chosen}
            body |= {name: value for name, value in {**CHAT, "prompt": "x"}.items() if name in schema["required"]}
            body |= {"max_tokens": 2} if "max_tokens" in schema["properties"] else {}
            status, said, _ = send(site, path, body)
            assert status < 500, (path, body, said)
            assert status == 200 or said["error"]["message"], (path, body)


def test_pages_of_others_and_other_names_are_not_let_in(site):
    port = urlsplit(site).port
    assert send(site, "/v1/models", headers={"Host": "evil.example"})[0] == 403
    assert send(site, "/v1/models", headers={"Host": "192.168.0.9"})[0] == 403  # it listens on this machine alone
    assert send(site, "/v1/models", headers={"Host": f"localhost:{port}"})[0] == 200
    for origin in ("https://evil.example", "null", f"http://127.0.0.1:{port + 1}", "http://[", "http://[::1"):
        assert send(site, "/v1/models", headers={"Origin": origin})[0] == 403
    assert send(site, "/v1/models", headers={"Origin": site})[0] == 200
    assert "access-control-allow-origin" not in send(site, "/v1/models", headers={"Origin": site})[2]


def test_adapters_are_loaded_by_name_and_unloaded(site):
    def load(name, path):
        return send(site, "/v1/load_lora_adapter", {"lora_name": name, "lora_path": path})

    for path in ("../red", "/etc", "green/../../red", "link", ".", "", None, "nothing"):
        status, said, _ = load("new", path)
        assert status in (400, 404) and said["error"]["param"] == "lora_path", path
    assert load("../x", "green")[0] == 400 and load("red", "green")[1]["error"]["code"] == "name_taken"
    before = send(site, "/v1/chat/completions", {**CHAT, "temperature": 0, "model": "blue"})[1]["choices"]
    for path, why in (("torn", "damaged"), ("wide", "does not fit")):
        status, said, _ = load("new", path)
        assert status == 400 and why in said["error"]["message"], said
        assert str(os.sep) + "root" not in said["error"]["message"]
    assert load("green", "green")[:2] == (200, "Success: LoRA adapter 'green' added successfully.")
    asked = {**CHAT, "temperature": 0, "max_tokens": 12}
    green = send(site, "/v1/chat/completions", {**asked, "model": "green"})[1]["choices"][0]["message"]
    assert green != send(site, "/v1/chat/completions", asked)[1]["choices"][0]["message"]
    assert send(site, "/v1/unload_lora_adapter", {"lora_name": "green"})[0] == 200
    assert send(site, "/v1/chat/completions", {**CHAT, "model": "green"})[0] == 404
    assert send(site, "/v1/unload_lora_adapter", {"lora_name": "tiny"})[0] == 400
    assert send(site, "/v1/chat/completions", {**CHAT, "temperature": 0, "model": "blue"})[1]["choices"] == before


def test_health_and_figures(site):
    assert send(site, "/health")[:2] == (200, {"status": "ok"})
    send(site, "/v1/chat/completions", CHAT)
    text = send(site, "/metrics")[1]
    figures = {line.split()[0]: float(line.split()[1]) for line in text.splitlines() if not line.startswith("#")}
    assert figures["tunesmith_requests_running"] == 0 and figures["tunesmith_generation_tokens_total"] > 0
    count = figures["tunesmith_time_to_first_token_seconds_count"]
    assert figures['tunesmith_time_to_first_token_seconds_bucket{le="+Inf"}'] == count > 0


def test_a_key_a_small_body_and_a_short_queue(shelf, monkeypatch, caplog):
    monkeypatch.setenv("TUNESMITH_API_KEY", "a-key-that-nobody-knows")
    bounds = {"max_body": 3000, "queue": 1, "max_rows": 1, "timeout": 2.0, "allowed_origins": ("https://good.example",)}
    with running(shelf, **bounds) as site:
        key = {"Authorization": "Bearer a-key-that-nobody-knows"}
        for wrong in ({}, {"Authorization": "Bearer a-key-that-nobody-know"}, {"Authorization": "Basic x"}):
            status, said, headers = send(site, "/v1/models", headers=wrong)
            assert (status, said["error"]["code"]) == (401, "invalid_api_key") and headers["www-authenticate"]
        assert send(site, "/metrics")[0] == 401 and send(site, "/health")[0] == 200
        assert send(site, "/v1/models", headers=key)[0] == 200
        good = send(site, "/v1/models", headers={**key, "Origin": "https://good.example"})
        assert good[0] == 200 and good[2]["access-control-allow-origin"] == "https://good.example"
        asked = "Authorization, content-type, x-stainless-os, openai-project, x-evil, x-stainless-\t"
        wanted = {"Origin": "https://good.example", "Access-Control-Request-Headers": asked}
        status, _, headers = send(site, "/v1/chat/completions", headers=wanted, method="OPTIONS")
        names = headers["access-control-allow-headers"].split(", ")
        assert (status, names) == (204, [one.lower() for one in asked.split(", ")[:4]])
        large = {**CHAT, "messages": [{"role": "user", "content": "secret words " * 300}]}
        assert send(site, "/v1/chat/completions", large, key)[0] == 413
        chunked = [json.dumps(large).encode()]
        link = http.client.HTTPConnection(urlsplit(site).netloc, timeout=60)
        link.request("POST", "/v1/chat/completions", iter(chunked), key, encode_chunked=True)
        answer = link.getresponse()
        assert answer.status == 413 and answer.read()
        link.close()
        long = {**CHAT, "max_tokens": 400, "ignore_eos": True, "n": 1, "logit_bias": {"1": -100}}
        found = []
        threads = [
            threading.Thread(target=lambda: found.append(send(site, "/v1/chat/completions", long, key)))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        refused = [one for one in found if one[0] == 429]
        assert refused and all(int(one[2]["retry-after"]) >= 1 for one in refused)
        assert {one[0] for one in found} <= {200, 429, 504}
    assert "secret words" not in caplog.text and "nobody" not in caplog.text


def test_who_leaves_is_not_waited_for(shelf):
    with running(shelf, max_rows=2, timeout=100.0) as site:
        body = json.dumps({**CHAT, "max_tokens": 450, "ignore_eos": True, "stream": True}).encode()
        links = []
        for _ in range(4):
            link = http.client.HTTPConnection(urlsplit(site).netloc, timeout=60)
            link.request("POST", "/v1/chat/completions", body)
            links.append(link)
        links[0].getresponse().read(10)
        for link in links:
            link.sock.shutdown(socket.SHUT_RDWR)
            link.close()
        until = time.monotonic() + 60
        while time.monotonic() < until:
            text = send(site, "/metrics")[1]
            if "tunesmith_requests_cancelled_total 4" in text:
                break
            time.sleep(0.05)
        assert "tunesmith_requests_cancelled_total 4" in text
        assert "requests_running 0" in text and "requests_waiting 0" in text
        assert send(site, "/v1/chat/completions", CHAT)[0] == 200


def test_what_cannot_be_served_is_refused_before_anything_is_loaded(shelf, tmp_path, monkeypatch):
    monkeypatch.delenv("TUNESMITH_API_KEY", raising=False)
    tiny = {"model": str(shelf / "tiny")}
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(BadEnvironment, match="port: .* is taken"):
            serve(Serving(**tiny, port=other.getsockname()[1]))
    with pytest.raises(BadEnvironment, match="TUNESMITH_API_KEY"):
        serve(Serving(**tiny, host="0.0.0.0"))
    for wrong, why in (
        ({"adapters": ("red",)}, "name=path"),
        ({"adapters": (f"../x={shelf / 'red'}",)}, "name=path"),
        ({"adapters": (f"tiny={shelf / 'red'}",)}, "is the name of the model"),
        ({"adapters": (f"a={tmp_path}",)}, "holds no adapter"),
        ({"adapter_root": str(tmp_path / "none")}, "is no folder"),
    ):
        with pytest.raises(RecipeError, match=why):
            serve(Serving(**tiny, port=0, **wrong))
    with pytest.raises(CheckpointError, match="does not fit"):
        serve(Serving(**tiny, port=0, adapters=(f"a={shelf / 'root' / 'wide'}",)))
    with pytest.raises(SystemExit) as left:
        main(["serve", str(shelf / "tiny"), "max_rowz=3"])
    assert left.value.code == 2


def test_a_signal_lets_what_was_asked_be_answered(shelf):
    code = "from tunesmith.cli import main; main()"
    words = [sys.executable, "-c", code, "serve", str(shelf / "tiny"), "--port", "0"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        site = next(line for line in process.stderr if "serving" in line).split(" at ")[1].strip().removesuffix("/v1")
        link = http.client.HTTPConnection(urlsplit(site).netloc, timeout=120)
        long = {**CHAT, "max_tokens": 300, "ignore_eos": True, "stream": True, "seed": 1}
        link.request("POST", "/v1/chat/completions", json.dumps(long))
        answer = link.getresponse()
        answer.read(10)
        process.send_signal(signal.SIGTERM)
        assert answer.read().endswith(b"data: [DONE]\n\n")
        link.close()
        assert process.wait(60) == 0


def test_a_whole_number_may_be_written_with_a_point(site):
    """2.0 is 2 to JSON Schema, whose word the document takes; what no number of a choice can be is refused."""
    asked = {"model": "tiny", "temperature": 0, "max_tokens": 3}
    plain = send(site, "/v1/completions", asked | {"prompt": [5, 6, 7], "seed": 3})
    pointed = send(site, "/v1/completions", asked | {"prompt": [5.0, 6.0, 7.0], "seed": 3.0, "max_tokens": 3.0})
    assert plain[0] == pointed[0] == 200 and plain[1]["choices"] == pointed[1]["choices"]
    assert send(site, "/v1/completions", asked | {"prompt": [5.5]})[0] == 400
    for index in (10**19, 1e300, 2**31):
        body = {"response_id": plain[1]["id"], "index": index, "thumb": "up"}
        assert send(site, "/v1/feedback", body)[0] == 400
