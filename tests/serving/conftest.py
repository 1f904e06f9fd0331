"""A server in a thread of this process, on a free port, with a tiny model and adapters beside it."""

import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from conftest import make_tiny

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from tunesmith.serving.serve import serve
from tunesmith.serving.settings import Serving


def adapter(folder: Path, seed: int, **config) -> Path:
    """A LoRA adapter of the tiny model that says something of its own."""
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(make_tiny(), LoraConfig(r=4, target_modules=["q_proj", "v_proj", "up_proj"], **config))
    torch.manual_seed(seed)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(0, 0.3)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def shelf(tmp_path_factory, tokenizer):
    """Folders: a base, adapters that mix and one that does not, a damaged one, one for another base."""
    home = tmp_path_factory.mktemp("shelf")
    make_tiny(max_position_embeddings=512).save_pretrained(home / "tiny")
    tokenizer.save_pretrained(home / "tiny")
    root = home / "root"
    adapter(home / "red", 1)
    adapter(home / "blue", 2, use_rslora=True)
    adapter(home / "dora", 3, use_dora=True)
    adapter(root / "green", 4)
    whole = (adapter(root / "torn", 5) / "adapter_model.safetensors").read_bytes()
    (root / "torn" / "adapter_model.safetensors").write_bytes(whole[:-40])
    from peft import LoraConfig, get_peft_model

    wide = make_tiny(max_position_embeddings=64)
    wide.config.hidden_size = 64
    get_peft_model(type(wide)(wide.config), LoraConfig(r=4)).save_pretrained(root / "wide")
    (root / "link").symlink_to(home / "red")
    return home


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
        except BaseException as error:
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


@pytest.fixture(scope="session")
def site(shelf, tmp_path_factory):
    """The address of a server with all of it, for tests that leave it as it was."""
    file = tmp_path_factory.mktemp("kept") / "feedback.sqlite"
    adapters = tuple(f"{name}={shelf / name}" for name in ("red", "blue", "dora"))
    with running(shelf, adapters=adapters, adapter_root=str(shelf / "root"), feedback=str(file)) as address:
        yield address


@pytest.fixture(scope="session")
def client(site):
    """OpenAI's own client."""
    openai = pytest.importorskip("openai")
    return openai.OpenAI(base_url=f"{site}/v1", api_key="none", max_retries=0)
