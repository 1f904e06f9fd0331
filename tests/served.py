"""A server in a thread of this process, on a free port, with a tiny model and adapters beside it."""

import http.client
import json
import threading
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import torch
from conftest import make_tiny

from tunesmith.model.load import hushed
from tunesmith.serving.serve import serve
from tunesmith.serving.settings import Serving


def adapter(folder: Path, seed: int, **config) -> Path:
    """A LoRA adapter of the tiny model that says something of its own."""
    from peft import LoraConfig, get_peft_model

    with hushed():
        model = get_peft_model(make_tiny(), LoraConfig(r=4, target_modules=["q_proj", "v_proj", "up_proj"], **config))
    torch.manual_seed(seed)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(0, 0.3)
    model.save_pretrained(folder)
    return folder


@contextmanager
def running(shelf, **more):
    """A server; its address. It has ended when this ends, whatever a test does to it."""
    box, ready = {}, threading.Event()

    def told(address, stop):
        box.update(address=address, stop=stop)
        ready.set()

    def work():
        try:
            serve(Serving(**{"model": str(shelf / "tiny"), "port": 0, **more}), told)
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            box["error"] = error
            ready.set()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert ready.wait(120)
    if "error" in box:
        raise box["error"]
    try:
        yield box["address"]
    finally:
        box["stop"]()
        thread.join(60)
        assert not thread.is_alive()


def send(site, path, body=None, headers=None, method=None):
    """A request by hand; the status, and what was answered."""
    link = http.client.HTTPConnection(urlsplit(site).netloc, timeout=60)
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    link.request(method or ("GET" if body is None else "POST"), path, data, headers or {})
    answer = link.getresponse()
    text = answer.read()
    link.close()
    known = "json" in (answer.headers["content-type"] or "")
    return answer.status, json.loads(text) if known and text else text.decode(), answer.headers
