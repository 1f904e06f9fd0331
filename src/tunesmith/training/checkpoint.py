"""What a run needs to go on exactly: the weights that learn, the optimizer, the random state. No pickle anywhere.

A checkpoint is a folder `step-00000120` of safetensors and a manifest. It is written beside its place, synced and
renamed; one whose manifest does not verify is set aside, never loaded and never deleted.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..config.layers import values
from ..config.load import dump
from ..errors import CheckpointError
from ..files import remove, whole
from ..run import Run

if TYPE_CHECKING:
    from .loop import Loop

Facts = dict[str, Any]


def save(folder: Path, loop: Loop, step: int, facts: Facts, keep: int | None) -> Path:
    """Write a checkpoint of a loop after `step`, then remove all but the newest `keep`."""
    from safetensors.torch import save_file

    place = folder / f"step-{step:08d}"
    with whole(place) as beside:
        beside.mkdir()
        save_file({name: weight.detach().contiguous() for name, weight in loop.weights.items()}, beside / WEIGHTS)
        save_file(optimizer_tensors(loop), beside / OPTIMIZER)
        save_file(random_state(), beside / RANDOM)
        sums = {file.name: {"bytes": file.stat().st_size, "sha256": digest(file)} for file in beside.iterdir()}
        manifest = {"step": step, "files": sums, **facts}
        (beside / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    for old in found(folder)[:-keep] if keep else []:
        remove(old)
    return place


def newest(folder: Path, say: Callable[[str], None]) -> Path | None:
    """The newest checkpoint that is whole; damaged ones are set aside, and said."""
    for place in reversed(found(folder)):
        fault = damage(place)
        if not fault:
            return place
        aside = place.with_name(f"damaged-{place.name}")
        remove(aside)
        place.replace(aside)
        say(f"checkpoint {place.name} is damaged ({fault}); set aside as {aside}")
    return None


def load(place: Path, loop: Loop, facts: Facts) -> Facts:
    """Put a checkpoint's state into a loop. Refused where `facts`, such as the data's hash, have changed."""
    from safetensors.torch import load_file

    manifest = json.loads((place / MANIFEST).read_text(encoding="utf-8"))
    changed = [change for name, change in changes(manifest, facts).items() if name not in APPLIED]
    if changed:
        raise CheckpointError(f"{place}: cannot go on exactly: {'; '.join(changed)}")
    weights = load_file(place / WEIGHTS)
    if weights.keys() != loop.weights.keys():
        raise CheckpointError(f"{place}: holds other weights than this method trains; the recipe has changed")
    with torch.no_grad():
        for name, weight in loop.weights.items():
            weight.copy_(weights[name])
    load_optimizer(loop, load_file(place / OPTIMIZER))
    place_schedule(loop, manifest["step"])
    state = load_file(place / RANDOM)
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    return manifest


APPLIED = ("train.learning_rate", "train.num_train_epochs", "train.max_steps")
"""What may change between the sessions of a run: it holds from the checkpoint on."""
HARMLESS = ("log", "save", "eval", "report", "on_nan")
"""How the settings of train begin that leave the weights alone."""


def deciding(run: Run) -> Facts:
    """The settings that decide a run's weights; of its data, the sequences' hash does."""
    settings = {".".join(key): value for key, value in values(dump(run))}
    return {
        name: value
        for name, value in settings.items()
        if name.startswith(("model.", "method.", "objective.", "train."))
        and not name.removeprefix("train.").startswith(HARMLESS)
    }


def changes(manifest: Facts, facts: Facts) -> dict[str, str]:
    """What is not as it was when a checkpoint was written, in words, by its name."""
    return {
        name: f"{name} has changed since (was {manifest.get(name)}, is {value})"
        for name, value in facts.items()
        if manifest.get(name) != value
    }


WEIGHTS, OPTIMIZER, RANDOM = "weights.safetensors", "optimizer.safetensors", "random.safetensors"
MANIFEST = "manifest.json"


def found(folder: Path) -> list[Path]:
    """All checkpoints, the oldest first."""
    if not folder.is_dir():
        return []
    return sorted(place for place in folder.iterdir() if re.fullmatch(r"step-\d{8}", place.name))


def damage(place: Path) -> str:
    """What is wrong with a checkpoint; empty if it verifies."""
    try:
        manifest = json.loads((place / MANIFEST).read_text(encoding="utf-8"))
        for name, expected in manifest["files"].items():
            if digest(place / name) != expected["sha256"]:
                return f"{name} is not what was written"
    except (OSError, ValueError, KeyError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def optimizer_tensors(loop: Loop) -> dict[str, Tensor]:
    """The optimizer's state as `weight|quantity`, such as `lm_head.weight|exp_avg`."""
    return {
        f"{name}|{quantity}": value.contiguous()
        for name, weight in loop.weights.items()
        for quantity, value in loop.optimizer.state.get(weight, {}).items()
        if isinstance(value, Tensor)
    }


def load_optimizer(loop: Loop, tensors: dict[str, Tensor]) -> None:
    for key, value in tensors.items():
        name, _, quantity = key.rpartition("|")
        weight = loop.weights[name]
        device = value.device if quantity == "step" else weight.device
        loop.optimizer.state[weight][quantity] = value.to(device)


def place_schedule(loop: Loop, step: int) -> None:
    """Set the learning rate to that after `step` steps; it depends on nothing else."""
    schedule = loop.scheduler
    rates = [base * at(step) for base, at in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)]
    schedule.load_state_dict(
        {"last_epoch": step, "_step_count": step + 1, "_last_lr": rates, "lr_lambdas": [None] * len(rates)}
    )
    for group, rate in zip(loop.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def random_state() -> dict[str, Tensor]:
    state = {"cpu": torch.get_rng_state()}
    return state | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})
