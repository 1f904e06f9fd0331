"""What a folder from elsewhere may decide, and what it may not: which code is run.

Weights, sizes and vocabularies are taken as they are. Code of the folder's own, kernels that it names and weights that
are no safetensors are not.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import RecipeError
from ..methods.mixture_of_depths import KIND, unmark
from .stored import Setting, stored

SAFE = (".safetensors", ".safetensors.index.json")


def refuse_code(folder: Path) -> Setting:
    """Refuse a model that could not be loaded without obeying its folder in what code is run.

    What is left is how its weights are quantised, if they are.
    """
    from transformers import CONFIG_MAPPING

    file = folder / "config.json"
    config = read_json(file)
    if not isinstance(config, dict):
        raise RecipeError(f"{file}: must be an object of settings; copy or download it again")
    kind = config.get("model_type")
    if config.get("auto_map") and kind not in CONFIG_MAPPING:
        raise RecipeError(
            f"{file}: auto_map: the model needs code that comes with it, which is not run; take a model that"
            f" transformers knows by itself (it knows no '{kind}')"
        )
    if any(part.get("quantization_config") for part in config.values() if isinstance(part, dict)):
        raise RecipeError(
            f"{file}: quantization_config: a model of which a part is quantised is not loaded; take it in bf16 or fp32"
        )
    if not str(config.get("transformers_weights") or SAFE[0]).endswith(SAFE):
        raise RecipeError(f"{file}: transformers_weights: names no safetensors; pickled weights are not loaded")
    if (folder / "adapter_config.json").is_file():
        raise RecipeError(
            f"{folder}: holds an adapter_config.json beside the model, which would be laid over it; move it away"
        )
    return stored(file, config)


def read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RecipeError(f"{file}: is not JSON ({error}); copy or download it again") from None


def read_config(folder: Path, **heads: Any):
    """A model's config without its wishes: transformers chooses attention and experts as it would of itself."""
    from transformers import CONFIG_MAPPING, AutoConfig

    quantised, said = refuse_code(folder), read_json(folder / "config.json")
    if said.get("model_type") == KIND:
        said = unmark(said)
        if said["model_type"] not in CONFIG_MAPPING:
            raise RecipeError(f"{folder / 'config.json'}: blocks_of: transformers knows no {said['model_type']!r:.40}")
        config = CONFIG_MAPPING[said["model_type"]].from_dict(said, **heads)
    else:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, **heads)
    config._attn_implementation = config._experts_implementation = None  # of its parts too
    config.__dict__.pop("auto_map", None)
    config.__dict__.pop("quantization_config", None)
    config.get_text_config().__dict__.pop("shifted_group_size", None)  # is said by the recipe
    if quantised:
        config.quantization_config = quantised
    return config
