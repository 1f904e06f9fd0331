"""Images in a dialogue: what the model sees is what is sent, and nothing is fetched that may not be."""

import base64
import socket
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO

import pytest
import torch
from served import running, send
from serving.seeing import make_seer

from tunesmith.errors import RecipeError
from tunesmith.serving import fetch
from tunesmith.serving.fault import Fault
from tunesmith.serving.pictures import picture
from tunesmith.serving.settings import Serving

Image = pytest.importorskip("PIL.Image")
FEW = Serving(model="none", max_image=2000, max_pixels=64 * 64, image_hosts=("pictures.example",), image_timeout=0.5)


def drawn(colour, size=(40, 30), kind="PNG"):
    box = BytesIO()
    Image.new("RGB", size, colour).save(box, kind)
    return box.getvalue()


def data_url(data):
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def asking(*addresses, text="what is this?", **more):
    parts = [{"type": "image_url", "image_url": {"url": address, **more}} for address in addresses]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


# --- what is seen -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def seer(tmp_path_factory, tokenizer):
    """A model that sees, its processor, and a server of both."""
    home = tmp_path_factory.mktemp("seer")
    model, processor = make_seer(tokenizer)
    for one in (model, processor):
        one.save_pretrained(home / "tiny")
    limits = {"max_image": 100_000, "max_pixels": 10_000, "max_images": 2}
    kept = home / "kept.sqlite"
    with running(home, feedback=str(kept), max_tokens=64, **limits) as address:
        yield model, processor, address


def theirs(model, processor, messages, images, most=12):
    """What transformers' own generation answers."""
    laid = [
        {**one, "content": [{"type": "image"} if part["type"] == "image_url" else part for part in one["content"]]}
        for one in messages
    ]
    text = processor.apply_chat_template(laid, add_generation_prompt=True)
    given = processor(text=[text], images=images, return_tensors="pt", add_special_tokens=False)
    made = model.generate(**given, max_new_tokens=most, do_sample=False, eos_token_id=None, pad_token_id=1)
    said = made[0, given["input_ids"].shape[1] :]
    return processor.tokenizer.decode(said, skip_special_tokens=True), given["input_ids"].shape[1]


def test_what_is_seen_is_what_is_sent_alone_and_in_company(seer):
    model, processor, address = seer
    colours = ("red", "green", "blue", "white")
    asked = {colour: asking(data_url(drawn(colour))) for colour in colours}
    body = {"model": "tiny", "max_tokens": 12, "temperature": 0, "ignore_eos": True}
    found = {}

    def ask(name, messages):
        found[name] = send(address, "/v1/chat/completions", {**body, "messages": messages, "logprobs": True})

    words = [{"role": "user", "content": "what is this?"}]
    both = asking(data_url(drawn("red")), data_url(drawn("blue")))
    threads = [threading.Thread(target=ask, args=one) for one in (*asked.items(), ("words", words), ("both", both))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pictures = {"words": [], "both": ["red", "blue"], **{colour: [colour] for colour in colours}}
    likely = set()
    for name, shown in pictures.items():
        status, answer, _ = found[name]
        assert status == 200, answer
        messages = (
            both
            if name == "both"
            else asked.get(name, [{"role": "user", "content": [{"type": "text", "text": "what is this?"}]}])
        )
        images = [Image.new("RGB", (40, 30), colour) for colour in shown] or None
        text, tokens = theirs(model, processor, messages, images)
        assert answer["choices"][0]["message"]["content"] == text, name
        assert answer["usage"]["prompt_tokens"] == tokens
        likely.add(tuple(round(one["logprob"], 4) for one in answer["choices"][0]["logprobs"]["content"]))
    assert len(likely) == len(pictures)
    for colour in ("blue", "red"):  # the same tokens were read before, of another image
        again = send(address, "/v1/chat/completions", {**body, "messages": asked[colour]})[1]
        assert again["choices"][0]["message"] == found[colour][1]["choices"][0]["message"]
        assert again["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    two = send(address, "/v1/chat/completions", {**body, "messages": asked["red"], "n": 2})[1]
    assert {one["message"]["content"] for one in two["choices"]} == {
        found["red"][1]["choices"][0]["message"]["content"]
    }


def test_a_dialogue_with_images_is_not_kept_for_feedback(seer):
    address = seer[2]
    body = {"model": "tiny", "max_tokens": 3, "messages": asking(data_url(drawn("red")))}
    id = send(address, "/v1/chat/completions", body)[1]["id"]
    assert send(address, "/v1/feedback", {"response_id": id, "thumb": "up"})[0] == 404
    body["messages"] = [{"role": "user", "content": "yes?"}]
    id = send(address, "/v1/chat/completions", body)[1]["id"]
    assert send(address, "/v1/feedback", {"response_id": id, "thumb": "up"})[0] == 200


WRONG = {
    "a file": (asking("file:///etc/passwd"), "addresses are not followed here"),
    "an address": (asking("http://169.254.169.254/latest"), "addresses are not followed here"),
    "no base64": (asking("data:image/png;base64,@@@@"), "is no base64"),
    "a text": (asking("data:text/html;base64,aGk="), "must be data:image/...;base64"),
    "no image": (asking("data:image/png;base64,aGVsbG8="), "is no image of PNG, JPEG, WEBP, GIF, BMP"),
    "half of one": (asking(data_url(drawn("red")[:-30])), "is no image of"),
    "another kind": (asking(data_url(drawn("red", kind="TIFF"))), "is no image of"),
    "too wide": (asking(data_url(drawn("red", (101, 100)))), "101 by 100 pixels; at most 10000 here"),
    "too large": (asking(data_url(b"x" * 100_001)), "more than 100000 bytes"),
    "too many": (asking(*[data_url(drawn("red"))] * 3), "at most 2 images here (got 3)"),
    "a detail": (asking(data_url(drawn("red")), detail="low"), "detail is as the model has it"),
    "no url": ([{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}], "an image must be"),
    "of the system": ([{**asking(data_url(drawn("red")))[0], "role": "system"}], "in a user's turn alone"),
    "its mark": (asking(data_url(drawn("red")), text="<image>"), "which stands for an image; leave it out"),
    "its mark alone": ([{"role": "user", "content": "<image>"}], "which stands for an image; leave it out"),
    "a sound": (
        [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}],
        "input_audio is not taken",
    ),
}


def test_each_image_that_cannot_be_taken_is_refused_in_openais_shape(seer):
    for name, (messages, why) in WRONG.items():
        status, said, _ = send(
            seer[2], "/v1/chat/completions", {"model": "tiny", "messages": messages, "max_tokens": 1}
        )
        assert status == 400 and said["error"]["type"] == "invalid_request_error", (name, said)
        assert why in said["error"]["message"], (name, said)


def test_what_a_small_file_would_unpack_to_is_never_unpacked():
    bomb = BytesIO()
    Image.new("1", (30_000, 30_000)).save(bomb, "PNG")
    data = bomb.getvalue()
    assert len(data) < 200_000
    many = Serving(model="none", max_image=len(data))
    with pytest.raises(Fault, match=r"30000 by 30000 pixels; at most|is no image of .*DecompressionBomb"):
        picture(data_url(data), many)


# --- what is fetched --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "224.0.0.1",
        "255.255.255.255", "240.0.0.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:127.0.0.1",
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
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (place, 0)) for place in places]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)


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


def test_a_model_whose_images_have_places_of_their_own_does_not_see(tokenizer, monkeypatch, tmp_path, caplog):
    from tunesmith.model import sight

    model, processor = make_seer(tokenizer)
    for one in (model, processor):
        one.save_pretrained(tmp_path)
    assert sight.sees(tmp_path) and sight.sight_of(tmp_path, model) is not None
    forward = type(model).forward

    def otherwise(self, position_ids=None, **given):  # as models do that count an image's rows and columns
        return forward(
            self,
            position_ids=None if position_ids is None else position_ids + 3 * torch.arange(position_ids.shape[-1]),
            **given,
        )

    monkeypatch.setattr(type(model), "forward", otherwise)
    assert sight.sight_of(tmp_path, model) is None and "images are not taken" in caplog.text
