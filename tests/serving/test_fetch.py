"""What is fetched of what clients name: only from hosts that are allowed, and nothing of this machine's network."""

import socket
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from serving.seeing import drawn

from tunesmith.errors import RecipeError
from tunesmith.serving import fetch
from tunesmith.serving.fault import Fault
from tunesmith.serving.pictures import picture
from tunesmith.serving.settings import Serving

FEW = Serving(model="none", max_image=2000, image_hosts=("pictures.example",), image_timeout=0.5)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "224.0.0.1",
        "255.255.255.255", "240.0.0.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1", "2002:7f00:1::", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "nonsense",
    ],
)  # fmt: skip
def test_no_address_of_this_machine_or_its_network_is_public(address):
    assert not fetch.public(address)


def test_addresses_of_the_world_are_public():
    assert all(map(fetch.public, ("93.184.216.34", "8.8.8.8", "2606:2800:220:1::1", "64:ff9b::808:808")))


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("ftp://pictures.example/a.png", "must be a data URL, or an address"),
        ("file:///etc/passwd", "must be a data URL, or an address"),
        ("//pictures.example/a.png", "must be a data URL, or an address"),
        ("http:///a.png", "must be a data URL, or an address"),
        ("http://pictures.example/a\r\nHost: x", "must be a data URL, or an address"),
        ("http://pictures.example:99999/", "is no address"),
        ("http://other.example/a.png", "images of other.example are not fetched here"),
        ("http://pictures.example.evil.example/", "are not fetched here"),
        ("http://pictures.example:8080/a.png", "are not fetched here"),
        ("http://pictures.example@other.example/", "must hold no name and password"),
        ("http://me:pass@pictures.example/", "must hold no name and password"),
        ("http://127.0.0.1/a.png", "images of 127.0.0.1 are not fetched here"),
        ("http://localhost/a.png", "images of localhost are not fetched here"),
    ],
)
def test_only_hosts_that_are_named_are_asked(address, why, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("a name was looked up"))
    with pytest.raises(Fault, match=why) as refused:
        fetch.fetched(address, FEW)
    assert refused.value.status == 400


def leads_to(monkeypatch, *places):
    """Every name leads to these addresses."""

    def found(host, port, *_, **__):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (place, port)) for place in places]

    monkeypatch.setattr(socket, "getaddrinfo", found)


@pytest.mark.parametrize("places", [["127.0.0.1"], ["93.184.216.34", "10.0.0.7"], ["169.254.169.254"]])
def test_a_name_that_leads_to_this_network_is_not_followed(places, monkeypatch):
    leads_to(monkeypatch, *places)
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: pytest.fail("it was asked"))
    with pytest.raises(Fault, match="is an address of this machine or its network"):
        fetch.fetched("https://pictures.example/a.png", FEW)


class Giver(BaseHTTPRequestHandler):
    """Gives images well and badly."""

    def do_GET(self):
        kind, body = self.path.partition("?")[0].strip("/"), drawn("red")
        if kind == "moved":
            self.send_response(302)
            self.send_header("location", "http://127.0.0.1/")
            return self.end_headers()
        if kind == "gone":
            return self.send_error(404)
        body = b"x" * 5000 if kind == "large" else body
        self.send_response(200)
        if kind != "endless":
            self.send_header("content-length", str(len(body) + (50 if kind == "torn" else 0)))
        self.end_headers()
        for piece in range(0, len(body), 10):
            self.wfile.write(body[piece : piece + 10])
            if kind in ("slow", "endless"):
                self.wfile.flush()
                time.sleep(0.2)

    def log_message(self, *_):
        pass


@contextmanager
def giver(monkeypatch):
    """A host of images on this machine, which stands for one of the world's."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Giver)
    server.daemon_threads, server.block_on_close = True, False
    server.handle_error = lambda *_: None  # whoever is cut off finds nobody there
    threading.Thread(target=server.serve_forever, daemon=True).start()
    leads_to(monkeypatch, "127.0.0.1")
    monkeypatch.setattr(fetch, "public", lambda _: True)
    try:
        yield f"pictures.example:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_what_is_fetched_is_bounded_in_size_time_and_way(monkeypatch):
    pytest.importorskip("PIL")
    with giver(monkeypatch) as host:
        limits = Serving(model="none", max_image=2000, image_hosts=(host,), image_timeout=0.5)
        assert picture(f"http://{host}/well?a=1", limits).getpixel((0, 0)) == (255, 0, 0)
        for kind, why in {
            "moved": "answered 302; redirects are not followed",
            "gone": "answered 404",
            "large": "more than 2000 bytes",
            "torn": "gave nothing",
        }.items():
            with pytest.raises(Fault, match=why):
                fetch.fetched(f"http://{host}/{kind}", limits)
        for kind in ("slow", "endless"):
            began = time.monotonic()
            with pytest.raises(Fault, match=r"took longer than 0\.5 s"):
                fetch.fetched(f"http://{host}/{kind}", limits)
            assert time.monotonic() - began < 3
        with pytest.raises(Fault, match="gave nothing"):  # no TLS is spoken there
            fetch.fetched(f"https://{host}/well", limits)


def test_names_of_hosts_are_checked_at_the_start():
    with pytest.raises(RecipeError, match="image_hosts: must be names of hosts"):
        Serving(model="none", image_hosts=("https://pictures.example/",)).refuse("")
    Serving(model="none", image_hosts=("pictures.example", "pictures.example:8443")).refuse("")
