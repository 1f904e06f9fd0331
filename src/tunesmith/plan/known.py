"""What a model is made of, without its weights: by its folder, by published sizes, or by the size in its name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import RecipeError
from ..model.demo import MODELS
from ..model.foreign import read_config, read_json
from ..model.hub import MODELSCOPE, REPOSITORY, TOKENIZER_FILES, locate
from .table import table


@dataclass(frozen=True)
class Found:
    """A model's config, and how it came to be known."""

    config: Any
    """transformers' config."""
    source: str
    folder: Path | None = None
    """Where it lies, tokenizer and all, if it is here."""
    assumed: tuple[str, ...] = ()
    """What is taken for granted."""


def find(name: str) -> Found:
    """The config of the model that a recipe names. Raises RecipeError where nothing tells how large it is."""
    here = Path(name).expanduser()
    if name in MODELS or here.is_file():
        folder = locate(name)
        return Found(read_config(folder), f"{folder}/config.json", folder)
    if (here / "config.json").is_file():
        return in_folder(here)
    said = short(name)
    if said in table("models"):
        return Found(published(said), f"the published sizes of {said}")
    if REPOSITORY.fullmatch(name) and not name.startswith(MODELSCOPE) and (found := on_hub(name)):
        return found
    return by_size(name)


ENDINGS = re.compile(r"-(instruct|chat|hf|it|base|v\d[\w.]*|bf16|fp16|2\d{3})$")


def short(name: str) -> str:
    """A model's name as the table has it."""
    said = name.removeprefix(MODELSCOPE).rpartition("/")[2].lower().replace("_", "-").replace("meta-llama-", "llama-")
    while said not in table("models") and ENDINGS.search(said):
        said = ENDINGS.sub("", said)
    return said


def published(name: str) -> Any:
    from transformers import CONFIG_MAPPING

    sizes = dict(table("models")[name])
    return CONFIG_MAPPING[sizes.pop("type")](**sizes)


def in_folder(folder: Path) -> Found:
    from transformers import CONFIG_MAPPING

    said = read_json(folder / "config.json")
    kind = said.get("model_type") if isinstance(said, dict) else None
    source = f"{folder / 'config.json'}"
    if isinstance(kind, str) and (kind in CONFIG_MAPPING or kind == "mixture_of_depths"):
        words = any(file for pattern in TOKENIZER_FILES for file in folder.glob(pattern))
        return Found(read_config(folder), source, folder if words else None)
    return Found(llama_like(said, source), source, None, (unknown(kind),))


def unknown(kind: Any) -> str:
    return (
        f"transformers knows no architecture '{kind}': its blocks are taken for Llama's (attention, a gated"
        " feed-forward part, two norms) of the sizes that its config.json names"
    )


SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
MORE = ("intermediate_size", "num_key_value_heads", "head_dim")
"""Sizes that have a usual value."""


def llama_like(said: Any, source: str) -> Any:
    from transformers import LlamaConfig

    there = said if isinstance(said, dict) else {}
    sizes = {key: there[key] for key in (*SIZES, *MORE) if there.get(key) is not None}
    wrong = [key for key in SIZES if key not in sizes]
    wrong += [key for key, value in sizes.items() if type(value) is not int or value < 1]
    if wrong:
        raise RecipeError(f"{source}: must say {', '.join(wrong)}, a whole number from 1 on; or name a known model")
    heads = sizes["num_attention_heads"]
    if sizes["hidden_size"] % heads or heads % sizes.get("num_key_value_heads", heads):
        rule = "hidden_size must be a multiple of num_attention_heads, and that one of num_key_value_heads"
        raise RecipeError(f"{source}: {rule}; or name a known model")
    usual = {"intermediate_size": round(8 / 3 * sizes["hidden_size"])}
    return LlamaConfig(**(usual | sizes), tie_word_embeddings=there.get("tie_word_embeddings") is True)


def on_hub(name: str) -> Found | None:
    """The config alone from Hugging Face, if it can be had."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HTTPError  # pyright: ignore[reportPrivateImportUsage] - whichever httpx it uses

    try:
        file = Path(hf_hub_download(name, "config.json", etag_timeout=5))
    except (OSError, ValueError, HTTPError):
        return None
    found = in_folder(file.parent)
    return Found(found.config, f"config.json of {name} on Hugging Face", None, found.assumed)


BILLIONS = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)([bm])(?![a-z0-9])")

SCALE = {"b": 1e9, "m": 1e6}


def by_size(name: str) -> Found:
    """A Llama of the size that a name tells: the nearest published one, with more or fewer blocks."""
    told = BILLIONS.search(name.rpartition("/")[2].lower().replace("_", "-"))
    if told is None or not float(told[1]):
        raise RecipeError(
            f"model.path: the sizes of {name} are unknown: it is no folder here, not in the table, and cannot be looked"
            f" up; name a folder with its config.json, or one of {', '.join(table('models'))}"
        )
    wanted = float(told[1]) * SCALE[told[2]]
    llamas = {key: sizes for key, sizes in table("models").items() if sizes["type"] == "llama"}
    nearest = min(llamas, key=lambda key: abs(size(llamas[key]) / wanted - 1))
    config = published(nearest)
    block = (size(llamas[nearest]) - words(llamas[nearest])) / config.num_hidden_layers
    config.num_hidden_layers = max(1, round((wanted - words(llamas[nearest])) / block))
    sentence = (
        f"{name} is not known: it is taken for a Llama of {told[1]}{told[2].upper()} weights,"
        f" {config.num_hidden_layers} blocks like those of {nearest}"
    )
    return Found(config, "the size in its name", None, (sentence,))


def words(sizes: dict[str, Any]) -> int:
    """The weights of embeddings and head."""
    return sizes["vocab_size"] * sizes["hidden_size"] * (1 if sizes.get("tie_word_embeddings") else 2)


def size(sizes: dict[str, Any]) -> int:
    """The weights of a Llama."""
    width, heads = sizes["hidden_size"], sizes["num_attention_heads"]
    keys = sizes.get("num_key_value_heads", heads) * (width // heads)
    block = 2 * width * width + 2 * width * keys + 3 * width * sizes["intermediate_size"] + 2 * width
    return words(sizes) + sizes["num_hidden_layers"] * block + width


def parameters(name: str) -> int | None:
    """About how many weights a model has, where that can be told at once, without fetching anything."""
    here, said = Path(name).expanduser(), short(name)
    if (here / "config.json").is_file():
        return count(in_folder(here).config)
    if said in table("models"):
        return count(published(said))
    told = BILLIONS.search(said)
    return (int(float(told[1]) * SCALE[told[2]]) or None) if told else None


def count(config: Any) -> int:
    """The weights of a model of this config."""
    import torch
    from transformers import AutoModel

    from ..model.load import quiet

    with torch.device("meta"), quiet():
        trunk = AutoModel.from_config(config, trust_remote_code=False)
    text = config.get_text_config()
    head = 0 if text.tie_word_embeddings else text.vocab_size * text.hidden_size
    return sum(weight.numel() for weight in trunk.parameters()) + head
