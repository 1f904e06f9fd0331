"""One LoRA adapter out of several."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import RecipeError
from ..files import whole
from .adapter import under_adapter
from .foreign import read_json
from .hub import locate

SPARSE = ("ties", "dare_linear", "dare_ties", "magnitude_prune")
"""Ways that keep a share of the numbers only."""


def combine(folders: Sequence[Path], shares: Sequence[float], base: str, out: Path, how: dict[str, Any]) -> None:
    """Write the adapter that several of one base come to, with the tokenizer of the first.

    `how` has PEFT's `combination_type` and the `density` of ways that drop parts.
    """
    from .load import hushed, load_model, load_tokenizer

    said = [read_json(folder / "adapter_config.json") for folder in folders]
    for folder, config in zip(folders, said, strict=True):
        if config.get("peft_type") != "LORA" or config.get("use_dora"):
            kind = "a DoRA" if config.get("use_dora") else config.get("peft_type")
            raise RecipeError(f"adapters merge: {folder} is {kind}; only plain LoRA adapters add up")
        if config.get("modules_to_save"):
            raise RecipeError(
                f"adapters merge: {folder} holds whole modules, {config['modules_to_save']}, of which there"
                " would be several; leave it out"
            )
    name = base or str(said[0].get("base_model_name_or_path") or "")
    if not name:
        raise RecipeError(f"adapters merge: {folders[0]} does not say its base; give --base")
    model: Any = load_model(locate(name))[0]
    parts = [f"part{number}" for number in range(len(folders))]
    with hushed():
        for part, folder in zip(parts, folders, strict=True):
            model = under_adapter(model, folder, part)
        options = how if how["combination_type"] in SPARSE else {"combination_type": how["combination_type"]}
        try:
            model.add_weighted_adapter(parts, list(shares), "default", **options)
        except ValueError as error:
            raise RecipeError(f"adapters merge: {str(error).splitlines()[0].rstrip('.')}; try --how svd") from None
        model.peft_config["default"].base_model_name_or_path = name
        with whole(out) as beside:
            model.save_pretrained(beside, selected_adapters=["default"], save_embedding_layers=False)
            if (folders[0] / "tokenizer_config.json").is_file():
                load_tokenizer(folders[0]).save_pretrained(beside)
