"""Images in a dialogue: what the model sees is what is sent, and nothing is fetched that may not be."""

import base64
import threading
from io import BytesIO

import pytest
from served import running, send
from serving.seeing import drawn, make_seer

from tunesmith.serving.fault import Fault
from tunesmith.serving.pictures import picture
from tunesmith.serving.settings import Serving

Image = pytest.importorskip("PIL.Image")


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

    words = asking()
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
        messages = {**asked, "words": words, "both": both}[name]
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
    once = found["red"][1]["choices"][0]["message"]["content"]
    assert [one["message"]["content"] for one in two["choices"]] == [once, once]


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
        [{"role": "user", "content": [{"type": "input_audio"}]}],
        "input_audio is not taken",
    ),
}


def test_each_image_that_cannot_be_taken_is_refused_in_openais_shape(seer):
    for name, (messages, why) in WRONG.items():
        body = {"model": "tiny", "messages": messages, "max_tokens": 1}
        status, said, _ = send(seer[2], "/v1/chat/completions", body)
        assert status == 400 and said["error"]["type"] == "invalid_request_error", (name, said)
        assert why in said["error"]["message"], (name, said)


def test_what_a_small_file_would_unpack_to_is_never_unpacked():
    bomb = BytesIO()
    Image.new("1", (9000, 9000)).save(bomb, "PNG")
    data = bomb.getvalue()
    assert len(data) < 50_000
    many = Serving(model="none", max_image=len(data))
    with pytest.raises(Fault, match="9000 by 9000 pixels; at most"):
        picture(data_url(data), many)


def test_a_model_whose_images_have_places_of_their_own_does_not_see(tokenizer, monkeypatch, tmp_path, caplog):
    from tunesmith.model import sight

    model, processor = make_seer(tokenizer)
    for one in (model, processor):
        one.save_pretrained(tmp_path)
    assert sight.sees(tmp_path) and sight.sight_of(tmp_path, model) is not None
    forward = type(model).forward

    def otherwise(self, position_ids=None, **given):  # as models do that count an image's rows and columns
        return forward(self, position_ids=None if position_ids is None else 3 * position_ids, **given)

    monkeypatch.setattr(type(model), "forward", otherwise)
    assert sight.sight_of(tmp_path, model) is None and "images are not taken" in caplog.text
