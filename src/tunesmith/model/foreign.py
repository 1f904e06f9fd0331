"""What a folder from elsewhere may decide, and what it may not: which code is run.

Weights, sizes and vocabularies are taken as they are. Code of the folder's own, kernels that it names and weights that
are no safetensors are not.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, RecipeError

SAFE = (".safetensors", ".safetensors.index.json")


def refuse_code(folder: Path) -> None:
    """Refuse a model that could not be loaded without obeying its folder in what code is run."""
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
    if any(part.get("quantization_config") for part in (config, *config.values()) if isinstance(part, dict)):
        raise RecipeError(
            f"{file}: quantization_config: quantised weights, and the kernels that they ask for, are not loaded;"
            " take the model in bf16 or fp32"
        )
    if not str(config.get("transformers_weights") or SAFE[0]).endswith(SAFE):
        raise RecipeError(f"{file}: transformers_weights: names no safetensors; pickled weights are not loaded")
    if (folder / "adapter_config.json").is_file():
        raise RecipeError(
            f"{folder}: holds an adapter_config.json beside the model, which would be laid over it; move it away"
        )


def read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RecipeError(f"{file}: is not JSON ({error}); copy or download it again") from None


def read_config(folder: Path, **heads: Any):
    """A model's config without its wishes: transformers chooses attention and experts as it would of itself."""
    from transformers import AutoConfig

    refuse_code(folder)
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False, **heads)
    config._attn_implementation = config._experts_implementation = None  # of its parts too
    config.__dict__.pop("auto_map", None)
    return config


# --- adapters ---------------------------------------------------------------------------------------------------------

OBEYED = {
    "r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules", "modules_to_save", "task_type", "bias",
    "use_rslora", "use_dora", "fan_in_fan_out", "rank_pattern", "alpha_pattern", "layers_to_transform",
    "layers_pattern",
}  # fmt: skip
HARMLESS = {
    "peft_type", "base_model_name_or_path", "auto_mapping", "revision", "peft_version", "inference_mode",
    "init_lora_weights", "megatron_core", "qalora_group_size",
}  # fmt: skip
"""What tells nothing that the weights depend on, once they are there; these keys are not read."""


def under_adapter(model, folder: Path):
    """A model under a LoRA adapter from a folder, every weight of which must fit it."""
    from peft import get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = folder / "adapter_model.safetensors"
    if not file.is_file():
        raise CheckpointError(f"{file}: is not there; pickled weights (adapter_model.bin) are not loaded")
    try:
        weights = load_file(file)
    except SafetensorError as error:
        raise CheckpointError(f"{folder}: the adapter's weights are damaged ({error}); copy them anew") from None
    config = adapter_config(folder, weights)
    try:
        tuned = get_peft_model(model, config)
    except ValueError as error:  # PEFT's own words for layers that are not there
        raise CheckpointError(f"{folder}: does not fit the model: {str(error).splitlines()[0]}; {FIT}") from None
    wanted = {name: tuple(weight.shape) for name, weight in get_peft_model_state_dict(tuned, **NO_WORDS).items()}
    there = {name: tuple(weight.shape) for name, weight in weights.items()}
    unlike = [name for name in sorted({**wanted, **there}) if wanted.get(name) != there.get(name)]
    if unlike:
        name = unlike[0]
        sizes = f"{there.get(name, 'nothing')} where the model takes {wanted.get(name, 'nothing')}"
        raise CheckpointError(f"{folder}: does not fit the model: {name} is {sizes}; {FIT}")
    set_peft_model_state_dict(tuned, weights)
    return tuned


FIT = "name the model that the adapter was trained on"
NO_WORDS: dict[str, Any] = {"save_embedding_layers": False}


def adapter_config(folder: Path, weights: dict[str, Any]):
    """An adapter's config, made of the keys that are obeyed; others must be as they usually are."""
    from peft import LoraConfig

    file = folder / "adapter_config.json"
    said = read_json(file)
    if said.get("peft_type") != "LORA":
        raise CheckpointError(f"{file}: peft_type: must be LORA (got {said.get('peft_type')!r:.40})")
    usual = LoraConfig().to_dict()
    for key in sorted(said.keys() - OBEYED - HARMLESS):
        if said[key] and said[key] != usual.get(key):
            raise CheckpointError(f"{file}: {key}: is not obeyed here; take an adapter without it")
    ranks = [weight.shape[0] for name, weight in weights.items() if ".lora_A." in name]
    if not ranks or max(said["r"], *(said.get("rank_pattern") or {}).values(), 0) > max(ranks):
        raise CheckpointError(f"{file}: r: is {said['r']}, but the weights have rank {max(ranks, default=0)}; {FIT}")
    return LoraConfig(**{key: said[key] for key in OBEYED & said.keys()}, inference_mode=True)
