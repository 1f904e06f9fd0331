"""What a run needs to go on exactly: the weights that learn, the optimizer, the random state. No pickle anywhere.

A checkpoint is a folder `step-00000120` of safetensors and a manifest, which is written last. It is written beside its
place, synced and renamed; one whose manifest does not verify is set aside, never loaded and never deleted.
"""

from __future__ import annotations

import errno
import json
import re
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from ..config.layers import values
from ..config.load import dump
from ..errors import BadEnvironment, CheckpointError
from ..files import full, remove, sha256, sync, whole
from ..machine import memory, random_state, set_random_state
from ..passport import digest
from ..run import Run
from ..runs import free

if TYPE_CHECKING:
    from .loop import Loop

Facts = dict[str, Any]


class Writer:
    """Writes a run's checkpoints from copies, in a thread of its own and one after another, while training goes on."""

    def __init__(self, folder: Path, keep: int | None, say: Callable[[str], None]) -> None:
        self.folder, self.keep, self.say = folder, keep, say
        self.thread = ThreadPoolExecutor(1, "checkpoint")
        self.writing: Future | None = None
        self.last = 0
        """The step that is being written, or was last."""
        self.saved: int | None = None
        """The step of the newest checkpoint that stands."""
        self.failed = 0
        """How many in a row could not be written."""

    def save(self, loop: Loop, step: int, facts: Facts) -> None:
        """Have a checkpoint written of a loop after `step`. Raises as `wait` does for the one before."""
        self.wait()
        held = state(loop)
        size = sum(tensor.nbytes for tensors in held.values() for tensor in tensors.values())
        copied = size < memory().free / 4
        if copied:
            held = {file: {name: one.to("cpu", copy=True) for name, one in held[file].items()} for file in held}
        self.writing, self.last = self.thread.submit(write, self.folder, step, held, facts, self.keep), step
        if not copied:
            self.say(f"checkpoint of step {step}: training waits for it; memory is too short for a copy of it")
            self.wait()

    def wait(self) -> None:
        """Until the last checkpoint is written. A failure is said; the third in a row is a BadEnvironment."""
        writing, self.writing = self.writing, None
        if writing is None:
            return
        try:
            writing.result()
            self.saved, self.failed = self.last, 0
        except (OSError, SafetensorError) as error:
            self.failed += 1
            last = f"the last one is of step {self.saved}" if self.saved else "there is none yet"
            why = "the disk is full" if full(error) else str(error)
            sentence = f"a checkpoint could not be written ({why}); {last}"
            if self.failed == FAILURES:
                raise BadEnvironment(
                    f"{FAILURES} times in a row {sentence}. Make room, then go on with --resume"
                ) from None
            self.say(f"{sentence}; training goes on")


FAILURES = 3
ROOM = 1.2
"""Free space asked for, as a share of what is to be written."""


def state(loop: Loop) -> dict[str, dict[str, Tensor]]:
    """What a checkpoint holds, by file and name."""
    weights = {name: weight.detach().contiguous() for name, weight in loop.weights.items()}
    remembered = {name: one.contiguous() for name, one in loop.method.state(loop.policy.model).items()}
    held = {WEIGHTS: weights, OPTIMIZER: optimizer_tensors(loop), RANDOM: random_state()}
    if loop.answers:
        held[ANSWERS] = loop.answers.state()
    return held | ({METHOD: remembered} if remembered else {})


def write(folder: Path, step: int, held: dict[str, dict[str, Tensor]], facts: Facts, keep: int | None) -> Path:
    """Write the checkpoint of a step, then remove all but the newest `keep`."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    size = sum(tensor.nbytes for tensors in held.values() for tensor in tensors.values())
    if shutil.disk_usage(folder).free < ROOM * size:
        raise OSError(errno.ENOSPC, f"it takes {size / 1e6:,.0f} MB", str(folder))
    place = folder / f"step-{step:08d}"
    with whole(place) as beside:
        beside.mkdir()
        for name, tensors in held.items():
            save_file(tensors, beside / name)
            sync(beside / name)
        sums = {name: {"bytes": (beside / name).stat().st_size, "sha256": sha256(beside / name)} for name in held}
        manifest = {"step": step, "files": sums, **facts}
        sealed = manifest | {SEAL: digest(manifest)}
        (beside / MANIFEST).write_text(json.dumps(sealed, indent=1), encoding="utf-8")
    for old in found(folder)[:-keep] if keep else []:
        remove(old)
    return place


def newest(folder: Path, say: Callable[[str], None]) -> Path | None:
    """The newest checkpoint that is whole; damaged ones are set aside, and said. None if there never was one.

    Raises CheckpointError where there are damaged ones only: to begin again is for the user to decide.
    """
    for place in folder.glob(".step-*") if folder.is_dir() else ():
        remove(place)  # of a process that was killed while it wrote
    for place in reversed(found(folder)):
        fault = damage(place)
        if not fault:
            return place
        aside = free(place.with_name(f"damaged-{place.name}"))
        place.replace(aside)
        say(f"checkpoint {place.name} is damaged ({fault}); set aside as {aside}")
    if damaged := sorted(folder.glob("damaged-*")) if folder.is_dir() else []:
        raise CheckpointError(
            f"{folder}: none of the {len(damaged)} checkpoints can be used; they are kept, as {damaged[0].name} and so"
            " on. Remove them to begin this run again from its first step"
        )
    return None


def load(place: Path, loop: Loop, facts: Facts) -> Facts:
    """Put a checkpoint's state into a loop. Refused where `facts`, such as the data's hash, have changed."""
    from safetensors.torch import load_file

    manifest = json.loads((place / MANIFEST).read_text(encoding="utf-8"))
    changed = [change for name, change in changes(manifest, facts).items() if name not in APPLIED]
    if changed:
        raise CheckpointError(f"{place}: cannot go on exactly: {'; '.join(changed)}")
    if manifest["step"] > loop.order.total:
        raise CheckpointError(f"{place}: the recipe ends after step {loop.order.total}; make train.max_steps larger")
    weights = load_file(place / WEIGHTS)
    if weights.keys() != loop.weights.keys():
        raise CheckpointError(f"{place}: holds other weights than this method trains; the recipe has changed")
    for name, weight in loop.weights.items():
        if weights[name].shape != weight.shape:  # ranks that are found out may be others on another machine
            raise CheckpointError(
                f"{place}: {name} is of {tuple(weights[name].shape)} and not of {tuple(weight.shape)}; go on with the"
                " processor and the versions that the run began with, or begin anew"
            )
    with torch.no_grad():
        for name, weight in loop.weights.items():
            weight.copy_(weights[name])
    load_optimizer(loop, load_file(place / OPTIMIZER))
    remember = {METHOD: partial(loop.method.restore, loop.policy.model)}
    remember |= {ANSWERS: loop.answers.restore} if loop.answers else {}
    for name in remember.keys() & manifest["files"].keys():
        remember[name](load_file(place / name))
    place_schedule(loop, manifest["step"])
    set_random_state(load_file(place / RANDOM))
    return manifest


LENGTH = ("num_train_epochs", "max_steps", "num_train_tokens", "max_seconds")
"""The settings that say how long a run goes on."""
APPLIED = tuple(f"train.{key}" for key in (*LENGTH, "learning_rate"))
"""What may change between the sessions of a run: it holds from the checkpoint on."""
HARMLESS = ("log", "save", "eval", "report", "on_nan", "max_skipped", "auto_batch", "activation_offload")
"""How the settings of train begin that leave the weights alone."""


PATIENCE = (
    "timeout", "retries", "backoff", "requests_per_minute", "parallel", "api_key_env", "price_in", "price_out",
    "calibration",
)  # fmt: skip
"""The settings of rewards that say how patiently, at whose cost and with what trust one asks."""


def deciding(run: Run) -> Facts:
    """The settings that decide a run's weights; of its data, the sequences' hash does. Where a sampler is, or how much
    room it has, is not among them."""
    settings = {".".join(key): value for key, value in values(dump(run))}
    found = {
        name: value
        for name, value in settings.items()
        if name.startswith(("model.", "method.", "objective.", "train."))
        and not name.removeprefix("train.").startswith(HARMLESS)
        and (name == "objective.sampler.name" or not name.startswith("objective.sampler."))
    }
    return found | rewarding(run)


def rewarding(run: Run) -> Facts:
    """Those of its rewards, each by itself, and how many there are; a file of theirs that has changed is said."""
    each = {str(number): dump(one) for number, one in enumerate(run.rewards)}
    settings = {".".join(("rewards", *key)): value for key, value in values(each)}
    found = {name: value for name, value in settings.items() if not name.endswith(PATIENCE)}
    return found | ({"rewards": len(run.rewards)} if run.rewards else {})


def changes(manifest: Facts, facts: Facts) -> dict[str, str]:
    """What is not as it was when a checkpoint was written, in words, by its name."""
    return {
        name: f"{name} has changed since (was {manifest.get(name)}, is {value})"
        for name, value in facts.items()
        if manifest.get(name) != value
    }


WEIGHTS, OPTIMIZER, RANDOM = "weights.safetensors", "optimizer.safetensors", "random.safetensors"
METHOD = "method.safetensors"
ANSWERS = "answers.safetensors"
MANIFEST, SEAL = "manifest.json", "sha256"


def found(folder: Path) -> list[Path]:
    """All checkpoints, the oldest first."""
    if not folder.is_dir():
        return []
    return sorted(place for place in folder.iterdir() if re.fullmatch(r"step-\d{8}", place.name))


def damage(place: Path) -> str:
    """What is wrong with a checkpoint; empty if it verifies."""
    try:
        manifest = json.loads((place / MANIFEST).read_text(encoding="utf-8"))
        if manifest.pop(SEAL) != digest(manifest) or place.name != f"step-{manifest['step']:08d}":
            return f"{MANIFEST} is not what was written"
        for name in {WEIGHTS, OPTIMIZER, RANDOM, *manifest["files"]}:
            if sha256(place / name) != manifest["files"][name]["sha256"]:
                return f"{name} is not what was written"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def optimizer_tensors(loop: Loop) -> dict[str, Tensor]:
    """The optimizer's state as `weight|quantity`, such as `lm_head.weight|exp_avg`; what is a plain number there has
    `|number` behind it, and what groups count stands as `|group|quantity`."""
    found = {}
    for name, weight in loop.weights.items():
        for quantity, value in loop.optimizer.state.get(weight, {}).items():
            if isinstance(value, Tensor):
                found[f"{name}|{quantity}"] = value.contiguous() if value.numel() > TABLE else value.clone()
            elif value is not None:
                found[f"{name}|{quantity}|number"] = number(value)
    for at, group in enumerate(loop.optimizer.param_groups):
        found |= {f"|{at}|{quantity}": number(group[quantity]) for quantity in loop.train.optim.counts}
    return found


TABLE = 4096
"""Tensors of so few numbers may be one table for many weights, which a file has once for each."""


def number(value: float) -> Tensor:
    """A plain number as a tensor, to the bit."""
    return torch.tensor(value, dtype=torch.float64 if isinstance(value, float) else None)


def load_optimizer(loop: Loop, tensors: dict[str, Tensor]) -> None:
    optimizer = loop.optimizer
    fused = {id(weight) for group in optimizer.param_groups if group.get("fused") for weight in group["params"]}
    for key, value in tensors.items():
        name, quantity, kind = (key + "|").split("|")[:3]
        if not name:
            optimizer.param_groups[int(quantity)][kind] = value.item()
            continue
        weight = loop.weights[name]
        elsewhere = quantity in BESIDE and id(weight) not in fused
        device = value.device if elsewhere else weight.device
        optimizer.state[weight][quantity] = value.item() if kind else value.to(device)


BESIDE = ("step", "seed", "due", "gap", "alike", "places")
"""Quantities that lie in main memory wherever the weight does."""


def place_schedule(loop: Loop, step: int) -> None:
    """Set the learning rate to that after `step` steps; it depends on nothing else."""
    schedule = loop.scheduler
    rates = [base * at(step) for base, at in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)]
    schedule.load_state_dict(
        {"last_epoch": step, "_step_count": step + 1, "_last_lr": rates, "lr_lambdas": [None] * len(rates)}
    )
    for group, rate in zip(loop.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
