"""A server on this machine that speaks OpenAI's language, and answers as a test would have it."""

from __future__ import annotations

import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import monotonic


class Stub:
    """What was asked, and when. `reply(body, number)` gives a text of the assistant, or (code, headers, bytes)."""

    def __init__(self, reply):
        self.reply, self.bodies, self.keys, self.times = reply, [], [], []
        self.lock = threading.Lock()
        self.url = ""

    def answer(self, body, key):
        with self.lock:
            number = len(self.bodies)
            self.bodies.append(body)
            self.keys.append(key)
            self.times.append(monotonic())
        given = self.reply(body, number)
        if isinstance(given, str):
            usage = {"prompt_tokens": 100, "completion_tokens": 10}
            said = {"choices": [{"message": {"role": "assistant", "content": given}}], "usage": usage}
            return 200, {}, json.dumps(said).encode()
        return given


@contextmanager
def serving(reply):
    stub = Stub(reply)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            code, headers, content = stub.answer(body, self.headers.get("Authorization"))
            self.send_response(code)
            for name, value in ({"Content-Length": str(len(content))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_):  # who asked has gone
            pass

    server = Quiet(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    stub.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def shown(body):
    """The two answers that a judge is shown, in their order."""
    text = body["messages"][-1]["content"]
    return [re.search(rf"<answer_{side}(_\w{{8}})>\n(.*?)\n</answer_{side}\1>", text, re.DOTALL)[2] for side in "AB"]


def verdict(better):
    return json.dumps({"reason": "so it seems", "better": better})


def by(key):
    """A judge that prefers the answer for which `key` is larger; the first of two alike."""
    return lambda body, number: verdict("A" if key(shown(body)[0]) >= key(shown(body)[1]) else "B")
