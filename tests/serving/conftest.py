"""One server for all that leaves it as it was, and the folders that it is served from."""

import pytest
from conftest import make_tiny
from safetensors.torch import load_file, save_file
from served import adapter, running


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
    torn = root / "torn" / "adapter_config.json"
    (root / "wide").mkdir()  # as if it had been trained on a model of other sizes
    (root / "wide" / "adapter_config.json").write_bytes(torn.read_bytes())
    weights = load_file(root / "green" / "adapter_model.safetensors")
    save_file(
        {name: weight.repeat(2, 2) for name, weight in weights.items()}, root / "wide" / "adapter_model.safetensors"
    )
    (root / "link").symlink_to(home / "red")
    return home


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
