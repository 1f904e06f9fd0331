"""Adapters from folders: what of their config is obeyed, and whether every weight fits the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .. import passport
from ..errors import CheckpointError, RecipeError
from ..methods._peft import Peft, switchable, without_compiler
from ..methods.base import method
from ..run import Run
from .foreign import read_json

OBEYED = {
    "target_modules", "exclude_modules", "modules_to_save", "task_type", "bias", "fan_in_fan_out",
    "layers_to_transform", "layers_pattern",
}  # fmt: skip
HARMLESS = {"peft_type", "base_model_name_or_path", "auto_mapping", "revision", "peft_version", "inference_mode"}


def kinds() -> dict[str, type[Peft]]:
    """The methods whose adapters are known, by PEFT's names of them."""
    return {entry.peft_type: entry for entry in method.all().values() if issubclass(entry, Peft)}


COUNTS = {"r", "init_r", "oft_block_size", "boft_block_size", "boft_block_num", "num_virtual_tokens", "bottleneck_size"}
"""What decides how much memory an adapter takes."""

WEIGHTS = ".safetensors"
FIT = "name the model that the adapter was trained on"
NO_WORDS: dict[str, Any] = {"save_embedding_layers": False}
UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, IndexError, RuntimeError)
"""What PEFT raises where a config's values are not of the kind that they should be."""


def adapters(run: Run) -> dict[str, Path]:
    """The folders of the adapters that a run begins with, by the settings that name them."""
    names = {f"model.adapters.{number}": name for number, name in enumerate(run.model.adapters)}
    names |= {"method.adapter": run.method.adapter} if run.method.adapter else {}
    return {setting: locate_adapter(name, setting.rstrip(".0123456789")) for setting, name in names.items()}


def refuse_strangers(found: dict[str, Path], base: Path, ours: dict[str, str] | None = None) -> None:
    """Refuse adapters whose run says that they stood on other weights than those of a model: sizes may be the same.

    `ours` keeps what the model's files come to, for whoever asks again of the same model."""
    ours = {} if ours is None else ours
    for setting, folder in found.items():
        if not (folder.parent / passport.NAME).is_file():
            continue
        said = passport.read(folder.parent).get("base", {})
        theirs = {name: one for name, one in said.items() if name.endswith(WEIGHTS) and ": " not in name}
        if not ours:
            ours |= passport.sums({file.name: file for file in passport.of_model(base) if file.suffix == WEIGHTS})
        if theirs and theirs != ours:
            raise CheckpointError(
                f"{setting}: {folder} was trained on other weights than those in {base}; {FIT}, or copy the adapter's"
                " folder out of its run to use it here all the same"
            )


def locate_adapter(name: str, setting: str) -> Path:
    """The folder of an adapter, by its own name or by that of the run that made it."""
    for folder in (Path(name) / "adapter", Path(name)):
        if (folder / "adapter_config.json").is_file():
            return folder
    raise RecipeError(f"{setting}: {name} holds no adapter; name the folder of an adapter_config.json, or of a run")


def under_adapter(model, folder: Path, name: str = "default"):
    """A model under an adapter from a folder, every weight of which must fit it; under one more, if it has some."""
    from peft import PeftModel, get_peft_model, set_peft_model_state_dict

    without_compiler()
    weights = adapter_weights(folder)
    config = adapter_config(folder, weights)
    try:
        if isinstance(model, PeftModel):
            model.add_adapter(name, config)
        else:
            model = switchable(get_peft_model(model, config, name))
        check(model, weights, folder, name)
    except UNREADABLE as error:  # PEFT's own words for layers that are not there, or values that make no sense
        said = str(error).strip().split("\n")[0] or type(error).__name__
        raise CheckpointError(f"{folder}: does not fit the model: {said}; {FIT}") from None
    set_peft_model_state_dict(model, weights, name)
    return model


def check(tuned, weights: dict[str, Any], folder: Path, name: str) -> None:
    """Refuse weights that are not those that a model takes, one for one."""
    from peft import get_peft_model_state_dict

    wanted = shapes(get_peft_model_state_dict(tuned, adapter_name=name, **NO_WORDS))
    there = shapes(weights)
    unlike = [name for name in sorted({**wanted, **there}) if wanted.get(name) != there.get(name)]
    if unlike:
        name = unlike[0]
        sizes = f"{there.get(name, 'nothing')} where the model takes {wanted.get(name, 'nothing')}"
        raise CheckpointError(f"{folder}: does not fit the model: {name} is {sizes}; {FIT}")


def kind_of(config) -> str:
    """PEFT's name of a method."""
    return str(getattr(config.peft_type, "value", config.peft_type))


def mergeable(config) -> bool:
    """Whether weights can take in an adapter: a change of them, not something beside or before them."""
    return not config.is_prompt_learning and kind_of(config) != "BOTTLENECK"


def merged(model, folder: Path):
    """A model with an adapter merged into its weights."""
    tuned = under_adapter(model, folder)
    config = tuned.peft_config["default"]
    if not mergeable(config):
        raise RecipeError(f"model.adapters: {folder} is of the kind {kind_of(config)}, which no weights can take in")
    return tuned.merge_and_unload()


def go_on(tuned, folder: Path) -> None:
    """Put an adapter's weights where those of a method are, which must be the same with the same options."""
    from peft import set_peft_model_state_dict

    weights = adapter_weights(folder)
    theirs, ours = adapter_config(folder, weights), tuned.peft_config["default"]
    if kind_of(theirs) != kind_of(ours):
        raise RecipeError(
            f"method.adapter: {folder} is of the kind {kind_of(theirs)}; the method here is {kind_of(ours)}"
        )
    for key in sorted(kinds()[kind_of(theirs)].obeyed - FREE):
        asked, there = getattr(ours, key), getattr(theirs, key)
        if asked != there and key == "rank_pattern" and kind_of(theirs) == "ADALORA":
            raise RecipeError(
                f"method.adapter: {folder} has dropped ranks, which do not come back; name it in model.adapters, and"
                " train a new adapter on top of it"
            )
        if asked != there:
            raise RecipeError(f"method.adapter: {folder} was made with {key} {there}, and the recipe has {asked}")
    if made_by_a_network(tuned):
        raise RecipeError(
            f"method.adapter: {folder} holds what a network has made, and not the network; go on with prompt_tuning, or"
            " without prefix_projection"
        )
    check(tuned, weights, folder, "default")
    set_peft_model_state_dict(tuned, weights)


FREE = {
    "lora_dropout", "vera_dropout", "module_dropout", "boft_dropout", "dropout", "orth_reg_weight", "total_step",
    "tinit", "tfinal", "deltaT", "beta1", "beta2", "d_initial",
}  # fmt: skip
"""What may be another thing in a run that goes on from an adapter."""


def made_by_a_network(tuned) -> bool:
    """Whether a soft prompt is more than the numbers that are saved of it."""
    prompt = getattr(tuned, "prompt_encoder", {})
    return any(len(list(one.parameters())) > 1 for one in prompt.values())


def shapes(weights: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(weight.shape) for name, weight in weights.items()}


def adapter_weights(folder: Path) -> dict[str, Any]:
    """An adapter's weights, from safetensors."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = folder / "adapter_model.safetensors"
    if not file.is_file():
        raise CheckpointError(f"{file}: is not there; pickled weights (adapter_model.bin) are not loaded")
    try:
        return load_file(file)
    except SafetensorError as error:
        raise CheckpointError(f"{folder}: the adapter's weights are damaged ({error}); copy them anew") from None


def adapter_config(folder: Path, weights: dict[str, Any]):
    """An adapter's config, made of the keys that are obeyed; others must be as they usually are."""
    file = folder / "adapter_config.json"
    if not file.is_file():
        raise CheckpointError(f"{file}: is not there; name the folder that an adapter was saved in")
    try:
        said = read_json(file)
    except RecipeError as error:
        raise CheckpointError(str(error)) from None
    known, name = kinds(), said.get("peft_type") if isinstance(said, dict) else said
    if not isinstance(name, str) or name not in known:
        raise CheckpointError(f"{file}: peft_type: must be one of {', '.join(sorted(known))} (got {name!r:.40})")
    kind = known[name]
    family, obeyed = kind.family(), OBEYED | kind.obeyed
    usual = family(**({"total_step": 1} if name == "ADALORA" else {})).to_dict()  # without it PEFT makes none
    for key in sorted(said.keys() - obeyed - HARMLESS - kind.unread):
        if said[key] and said[key] != usual.get(key):
            raise CheckpointError(f"{file}: {key}: is not obeyed here; take an adapter without it")
    check_sizes(file, said, weights)
    try:
        return family(**{key: said[key] for key in obeyed & said.keys() & usual.keys()}, inference_mode=True)
    except UNREADABLE as error:
        raise CheckpointError(f"{file}: cannot be read: {str(error).splitlines()[0]}; copy it anew") from None


def check_sizes(file: Path, said: dict[str, Any], weights: dict[str, Any]) -> None:
    """Refuse an adapter that says it is larger than its weights are, before room is made for it."""
    for key in sorted(COUNTS & said.keys()):
        if said[key] is not None and not isinstance(said[key], int):
            raise CheckpointError(f"{file}: {key}: must be a whole number (got {said[key]!r:.40}); copy it anew")
    ranks = [weight.shape[0] for name, weight in weights.items() if ".lora_A" in name]
    if said["peft_type"] == "LORA":
        patterned = [rank for rank in dict(said.get("rank_pattern") or {}).values() if isinstance(rank, int)]
        asked = max(said.get("r") or 8, *patterned, 0)
        if not ranks or asked > max(ranks):
            raise CheckpointError(f"{file}: r: is {asked}, but the weights have rank {max(ranks, default=0)}; {FIT}")
    largest = max((size for weight in weights.values() for size in weight.shape), default=0)
    for key in sorted(COUNTS & said.keys()):
        if isinstance(said[key], int) and said[key] > largest:
            raise CheckpointError(f"{file}: {key}: is {said[key]}, but no weight is larger than {largest}; {FIT}")
