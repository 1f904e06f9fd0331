"""People are told by webhook how a run ended, also where its process was killed; the address is shown nowhere."""

import base64
import hashlib
import hmac
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import pytest
from training.test_resume import StopsAfter, run_of

from tunesmith.config.load import dump
from tunesmith.errors import BadEnvironment, RecipeError, Stopped
from tunesmith.follower import Follower
from tunesmith.methods.lora import LoRA
from tunesmith.notices.base import notice
from tunesmith.objectives.sft import SFT
from tunesmith.secret import masked
from tunesmith.training.train import resume, train
from tunesmith.training.watched import refuse_watchers

SECRET = "hook-0f3c9a7be21d"
KINDS = list(notice.all())


@contextmanager
def listening(answer=b"{}", status=200):
    """A server that takes messages in; what it was sent, and its address."""
    heard: list[tuple[str, dict]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            heard.append((self.path, body))
            self.send_response(status)
            self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/elsewhere")
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST

        def log_message(self, *_):
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield heard, f"http://127.0.0.1:{server.server_port}/services/{SECRET}"
    finally:
        server.shutdown(), thread.join(), server.server_close()


def sent(notices, end, said) -> list[str]:
    """Have the process send what is due; what failed."""
    faults: list[str] = []
    follower = Follower("tunesmith.notices", faults.append)
    follower.tell({"run": "quick", "notices": [dump(one) for one in notices]})
    if end is None:
        follower.process.stdin and follower.lines.put(None)
        follower.threads[1].join(300)
        follower.process.wait()
    else:
        assert follower.end({"ending": end, "said": said, "figures": {"n": 2}}, 300)
    return faults


def text_of(body) -> str:
    found = body.get("text") or body.get("content")
    return found if isinstance(found, str) else (found or body)["text" if "msg_type" in body else "content"]


def test_each_service_is_told_in_its_own_way_and_only_of_what_was_asked(monkeypatch):
    with listening() as (heard, url):
        monkeypatch.setenv("TEAM_WEBHOOK", f"{url}?access_token={SECRET}")
        monkeypatch.setenv("TEAM_SIGN", "a-secret-to-sign-with")
        plain = [notice[name](url_env="TEAM_WEBHOOK") for name in KINDS]
        signed = [notice[name](url_env="TEAM_WEBHOOK", secret_env="TEAM_SIGN", when=("failed",)) for name in SIGNED]
        assert sent(plain + signed, "finished", "Loss <fell> & rose") == []
        assert len(heard) == len(KINDS)
        bodies = {name: body for name, (_, body) in zip(KINDS, heard, strict=True)}
        said = "Tunesmith: quick finished. Loss <fell> & rose"
        assert bodies["slack"] == {"text": "Tunesmith: quick finished. Loss &lt;fell&gt; &amp; rose"}
        assert bodies["lark"] == {"msg_type": "text", "content": {"text": said}}
        assert bodies["dingtalk"] == {"msgtype": "text", "text": {"content": said}}
        assert bodies["webhook"] == {
            "run": "quick", "ending": "finished", "said": "Loss <fell> & rose", "figures": {"n": 2},
        }  # fmt: skip

        heard.clear()
        assert sent(signed, None, "") == []  # its process is gone
        (asked, ding), (_, lark) = heard
        assert "killed" in ding["text"]["content"] and "quick died" in lark["content"]["text"]
        given = parse_qs(urlsplit(asked).query)
        key = "a-secret-to-sign-with"
        mac = hmac.new(key.encode(), f"{given['timestamp'][0]}\n{key}".encode(), hashlib.sha256).digest()
        assert given["sign"] == [base64.b64encode(mac).decode()] and given["access_token"] == [SECRET]
        mac = hmac.new(f"{lark['timestamp']}\n{key}".encode(), b"", hashlib.sha256).digest()
        assert lark["sign"] == base64.b64encode(mac).decode() and len(lark["timestamp"]) == 10


SIGNED = [name for name in KINDS if "secret_env" in {field.name for field in fields(notice[name])}]


def test_what_is_not_taken_is_said_without_the_address(monkeypatch):
    no = b'{"errcode": 310000, "errmsg": "keywords not in content", "code": 19001, "msg": "param invalid"}'
    with (
        listening(no) as (_, refusing),
        listening(b"no_service", 404) as (_, missing),
        listening(b"", 302) as (
            led,
            leading,
        ),
    ):
        monkeypatch.setenv("ONE", refusing), monkeypatch.setenv("TWO", missing), monkeypatch.setenv("THREE", leading)
        monkeypatch.setenv("FOUR", f"http://127.0.0.1:9/services/{SECRET}")
        wanted = [("dingtalk", "ONE"), ("lark", "ONE"), ("slack", "TWO"), ("slack", "THREE"), ("webhook", "FOUR")]
        [said] = sent([notice[name](url_env=variable) for name, variable in wanted], "finished", "")
    assert len(led) == 1  # a redirect is not followed
    for part in ("keywords not in content (errcode 310000)", "param invalid (code 19001)", "HTTP 404", "HTTP 302"):
        assert part in said
    assert said.count(";") == 4 and SECRET not in said


def test_what_cannot_be_told_is_refused_and_not_shown(model_folder, reviews, tmp_path, monkeypatch):
    from dataclasses import replace

    run = run_of(model_folder, reviews, tmp_path / "run", LoRA(), SFT())
    address = f"https://hooks.example.org/services/{SECRET}"
    monkeypatch.setenv("NO_URL", f"ftp://example.org/{SECRET}"), monkeypatch.delenv("UNSET", raising=False)
    cases = [(address, RecipeError, "name of an environment variable"), ("UNSET", BadEnvironment, "has no UNSET")]
    for variable, kind, said in [*cases, ("NO_URL", BadEnvironment, "begins with https://")]:
        with pytest.raises(kind, match="notify.0.url_env: .*" + said) as refused:
            refuse_watchers(replace(run, notify=(notice["slack"](url_env=variable),)))
        assert SECRET not in str(refused.value)
    with pytest.raises(BadEnvironment, match="notify.0.secret_env"):
        monkeypatch.setenv("FINE", address)
        refuse_watchers(replace(run, notify=(notice["lark"](url_env="FINE", secret_env="UNSET"),)))
    assert masked(f"see {address} and /services/{SECRET}") == "see *** and ***"


def test_a_run_tells_how_it_ended_and_shows_the_address_nowhere(model_folder, reviews, tmp_path, monkeypatch, capsys):
    from dataclasses import replace

    with listening() as (heard, url):
        monkeypatch.setenv("TEAM_WEBHOOK", url)
        told = (notice["webhook"](url_env="TEAM_WEBHOOK", when=("finished", "stopped", "failed")),)
        run = run_of(model_folder, reviews, tmp_path / "run", LoRA(r=4), SFT(), max_steps=4)
        with pytest.raises(Stopped):
            train(replace(run, notify=told), [StopsAfter(2)])
        resume(tmp_path / "run")
        lost = replace(run, data=replace(run.data, path=str(tmp_path / "nowhere.jsonl")), output=str(tmp_path / "no"))
        with pytest.raises(Exception, match="nowhere"):
            train(replace(lost, notify=told))
        killed = [
            sys.executable, "-m", "tunesmith", "train", f"model.path={model_folder}", f"data.path={reviews}",
            "data.format=template", f"output={tmp_path / 'killed'}", "eval.enabled=false", "train.max_steps=100000",
            "notify=[{name: webhook, url_env: TEAM_WEBHOOK}]", "train.logging_steps=1",
        ]  # fmt: skip
        process = subprocess.Popen(killed, stderr=subprocess.DEVNULL)
        while process.poll() is None and not (tmp_path / "killed" / "metrics.jsonl").exists():
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        for _ in range(3000):
            if len(heard) >= 4:
                break
            time.sleep(0.1)
    bodies = [body for _, body in heard]
    assert [(body["run"], body["ending"]) for body in bodies] == [
        ("run", "stopped"), ("run", "finished"), ("no", "failed"), ("killed", "died"),
    ]  # fmt: skip
    assert "nowhere.jsonl" in bodies[2]["said"] and str(tmp_path) not in json.dumps(bodies)
    assert bodies[1]["figures"]["train_seconds"] > 0
    said = capsys.readouterr()
    shown = [said.out, said.err] + [
        file.read_bytes().decode(errors="replace") for file in tmp_path.rglob("*") if file.is_file()
    ]
    assert not any(SECRET in text for text in shown)
