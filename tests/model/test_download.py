"""Files at https addresses: used only with the right hash, kept whole or not at all."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import HTTPHandler, HTTPSHandler, Request, build_opener

import pytest

from tunesmith.errors import BadEnvironment, DataError, RecipeError
from tunesmith.model import download as room
from tunesmith.model.download import OnlyHttps, download

ROWS = b'{"text": "a"}\n' * 100
HASH = hashlib.sha256(ROWS).hexdigest()


@pytest.fixture
def server():
    """A web server whose answers a test sets, and how often it was asked."""

    class Answer(BaseHTTPRequestHandler):
        said, length, status, headers_more, asked = ROWS, len(ROWS), 200, {}, 0

        def do_GET(self):
            Answer.asked += 1
            self.send_response(Answer.status)
            for name, value in {"Content-Length": str(Answer.length), **Answer.headers_more}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(Answer.said)

        def log_message(self, *args):
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=listening.serve_forever)
    thread.start()
    Answer.port = listening.server_port
    yield Answer
    listening.shutdown()
    thread.join()
    listening.server_close()


@pytest.fixture
def get(server, tmp_path):
    """A download whose https connections go to the server."""

    class Plain(HTTPSHandler):
        def https_open(self, req):
            there = Request(f"http://127.0.0.1:{server.port}{req.selector}")
            there.timeout = req.timeout
            return HTTPHandler().http_open(there)

    return lambda sha256, url="https://there.example/a/rows.jsonl": download(
        url, sha256, tmp_path / "cache", build_opener(OnlyHttps, Plain)
    )


def kept(tmp_path):
    return sorted(path.name for path in (tmp_path / "cache").rglob("*") if path.is_file())


def test_a_file_is_downloaded_once(get, server):
    first = get(HASH)
    assert first.read_bytes() == ROWS
    assert first.name == "rows.jsonl"
    assert get(HASH.upper()) == first
    assert server.asked == 1
    first.write_bytes(b"changed")
    assert get(HASH).read_bytes() == ROWS
    assert server.asked == 2


def test_nothing_is_used_whose_hash_is_not_known(get, server):
    with pytest.raises(RecipeError, match=f"needs data.sha256.*set data.sha256={HASH}"):
        get(None)
    assert get(HASH).read_bytes() == ROWS
    assert server.asked == 1  # what was looked at is what is used
    with pytest.raises(DataError, match=f"has the sha256 {HASH}, not {'0' * 64}"):
        get("0" * 64)


def test_what_did_not_come_whole_is_not_kept(get, server, tmp_path, monkeypatch):
    server.length = len(ROWS) + 1
    with pytest.raises(BadEnvironment, match="rows.jsonl: could not be downloaded"):
        get(HASH)
    server.length, server.status = len(ROWS), 404
    with pytest.raises(BadEnvironment, match="could not be downloaded .*404"):
        get(HASH)
    server.status = 200
    monkeypatch.setattr(room, "LARGEST", 1000)
    with pytest.raises(DataError, match="is larger than"):
        get(HASH)
    assert kept(tmp_path) == []


@pytest.mark.parametrize(
    "to",
    ["http://there.example/x", "https://127.0.0.1/x", "https://[::1]/x", "https://10.1.2.3/x", "https://localhost"],
)
def test_a_redirect_must_stay_https_and_public(get, server, tmp_path, to):
    server.status, server.headers_more = 302, {"Location": to}
    with pytest.raises(DataError, match="leads on to .*only public https:// addresses are followed"):
        get(HASH)
    assert kept(tmp_path) == []


@pytest.mark.parametrize(
    ("url", "sha256", "sentence"),
    [
        ("http://there.example/rows.jsonl", HASH, "only https:// addresses are read"),
        ("ftp://there.example/rows.jsonl", HASH, "only https:// addresses are read"),
        ("https://there.example/rows", HASH, "must end in the name of a file of rows"),
        ("https://there.example/rows.jsonl", "abc", "data.sha256: must be 64 hexadecimal digits"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_asked(get, server, url, sha256, sentence):
    with pytest.raises(RecipeError, match=sentence):
        get(sha256, url)
    assert server.asked == 0


def test_a_cache_that_cannot_be_written_is_named(server, get, tmp_path):
    (tmp_path / "cache").write_text("a file, where a folder should be")
    with pytest.raises(BadEnvironment, match="cannot be written"):
        get(HASH)
