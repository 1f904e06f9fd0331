"""A run's passport, manifest.json: the hashes of all that decides its result, and of the weights that came of it.

hashes            one each for the recipe, code, data, base model and environment
options           every effective value, and where it came from
seeds             of training, and of what is measured
code, data, base  sha256 by file; `sequences` is that of everything trained on, `measured rows` of the held-out ones
versions, machine what the last bits of a result depend on
changed           what was another thing later in the run
result            sha256 by file of weights, and of the weights as they were in memory; there once it has finished
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config.load import dump, leaves, setting
from .errors import CheckpointError
from .files import sha256, write
from .run import Run
from .runs import versions

if TYPE_CHECKING:
    from torch import Tensor

Passport = dict[str, Any]
Sums = dict[str, str]
"""sha256 by the name of a file."""
Differences = dict[str, dict[str, tuple[Any, Any]]]
"""By section and name: what one passport says, and what the other does."""

NAME = "manifest.json"
SEQUENCES, MEASURED, TRAINED = "sequences", "measured rows", "trained weights"
"""What has a hash beside files."""
LIBRARIES = ("torch", "transformers", "peft", "accelerate")
"""What computes a step, beside our own code."""
SECTIONS = ("code", "data", "base", "versions", "machine")
MODEL_SUFFIXES = {".safetensors", ".json", ".txt", ".model", ".jinja", ".tiktoken", ".spm"}
"""Of the files beside config.json that a model or its tokenizer is read from."""
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
WORTH_SAYING = 3.0
"""Seconds."""


def make(
    run: Run, origins: Mapping[str, str], inputs: Mapping[str, Sums], rows: Sums, machine: Mapping[str, Any]
) -> Passport:
    """The passport of a run that starts here and now. `inputs` is what `inputs()` found, `rows` what is read of it."""
    found = {
        "options": {name: {"value": value, "origin": origin} for name, value, origin in settings(run, origins)},
        "seeds": {"training": run.train.seed, "measured rows": 0, "intervals": 0},
        "code": code(),
        "data": inputs["data"] | rows,
        "base": inputs["base"],
        "versions": versions(run.model.precision.package),
        "machine": dict(machine),
    }
    hashes = {"recipe": recipe(run)} | {section: digest(found[section]) for section in ("code", "data", "base")}
    return {"hashes": hashes | {"environment": digest([found["versions"], found["machine"]])}, **found}


def inputs(
    base: Path, data: Sums, say: Callable[[str], None], beside: Mapping[str, Path] | None = None
) -> dict[str, Sums]:
    """The sums of the files that a run reads; those of its data are known. `beside` are folders of adapters and other
    models by the settings that name them."""
    began = time.perf_counter()
    model_files = {file.name: file for file in of_model(base)}
    for setting_, folder in (beside or {}).items():
        adapter = (folder / ADAPTER_FILES[0]).is_file()
        files = [folder / name for name in ADAPTER_FILES] if adapter else of_model(folder)
        model_files |= {f"{setting_}: {file.name}": file for file in files}
    found = {"data": data, "base": sums(model_files)}
    seconds = time.perf_counter() - began
    if seconds > WORTH_SAYING:
        say(f"passport: the hashes of the model took {seconds:.0f} s")
    return found


def of_model(folder: Path) -> list[Path]:
    """The files that a model and its tokenizer are read from."""
    return [
        file for file in folder.iterdir() if file.suffix in MODEL_SUFFIXES and file.name[0] != "." and file.is_file()
    ]


def recipe(run: Run) -> str:
    """The hash of a recipe; where its result is put and who is told of it does not matter."""
    return digest(dump(replace(run, output=None, notify=())))


def code() -> Sums:
    """The sums of Tunesmith's own code."""
    root = Path(__file__).parent
    return sums({file.relative_to(root).as_posix(): file for file in root.rglob("*.py")})


def settings(run: Any, origins: Mapping[str, str]) -> list[tuple[str, Any, str]]:
    """Every setting of a recipe, with where its value came from."""
    tree, found, given = dump(run), [], set(set_in_python(run))
    for path in leaves(tree):
        value = tree
        for key in path:
            value = value[key]
        found.append((setting(path), value, origins.get(setting(path), "Python" if path in given else "default")))
    return found


def set_in_python(record: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every value that is not its field's default; a run made in Python names no origins."""
    for each in fields(record):
        value, path = getattr(record, each.name), (*above, each.name)
        if not is_dataclass(value):
            yield from [path] if value != each.default else []
            continue
        if hasattr(value, "name") and type(value) is not type(each.default):
            yield (*path, "name")
        yield from set_in_python(value, path)


def made_by(passport: Passport) -> dict[str, str]:
    """The hash of our code and the versions of what it stands on, for a checkpoint."""
    known = passport["versions"]
    return {"code": passport["hashes"]["code"]} | {name: known[name] for name in LIBRARIES}


def origins(passport: Passport) -> dict[str, str]:
    """Where each setting of a passport's run came from."""
    return {name: said["origin"] for name, said in passport.get("options", {}).items()}


# on disk


def read(folder: Path) -> Passport:
    """The passport of the run in a folder."""
    try:
        return json.loads((folder / NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder}: {NAME}, the run's passport, cannot be read ({error})") from None


def keep(folder: Path, passport: Passport, say: Callable[[str], None]) -> None:
    """Write the passport of a run that starts. Of one that goes on the first stands, and what is another thing now is
    noted in it and said; raises CheckpointError where that is the model, or what is trained on."""
    if not (folder / NAME).exists():
        put(folder, passport)
        return
    first = read(folder)
    found = differences(first, passport)
    if fault := lost(found):
        raise CheckpointError(f"{folder}: cannot go on exactly: {fault}; put back what was, or start anew")
    if found:
        if MEASURED in found.get("data", {}):
            say(
                "the held-out rows have changed since this run began: its figures before and after training are not of"
                " the same rows; measure both again with `tunesmith eval`, or put back the rows that were"
            )
        names = "; ".join(f"{section}: {short(names)}" for section, names in found.items())
        say(f"not as when this run began: {names}; noted in {NAME}")
        put(folder, first | {"changed": merged(first.get("changed", {}), found)})


def lost(found: Differences) -> str:
    """Why a run cannot go on, in words, if it cannot."""
    if "base" in found:
        return f"the base model has changed since: {', '.join(found['base'])}"
    names = found.get("data", {}).keys()
    if SEQUENCES in names:
        return f"data has changed since: {', '.join(names - {SEQUENCES, MEASURED}) or 'its rows read differently'}"
    return ""


def complete(folder: Path, saved: Path, weights: Mapping[str, Tensor], cuts: int) -> None:
    """Add what a run came to: its files of weights below `saved`, and the weights that learnt. `cuts` is into how many
    parts batches were cut when memory ran out, by which sums are rounded another way."""
    known = read(folder)
    if cuts > 1:
        cut: Differences = {"machine": {"batches cut for memory": (1, cuts)}}
        known["changed"] = merged(known.get("changed", {}), cut)
    files = {file.relative_to(folder).as_posix(): file for file in saved.glob("*.safetensors")}
    put(folder, known | {"result": sums(files) | {TRAINED: in_memory(weights)}})


def put(folder: Path, passport: Passport) -> None:
    write(folder / NAME, json.dumps(passport, indent=1, ensure_ascii=False))


# two of them


def differences(one: Passport, other: Passport) -> Differences:
    """What two passports do not have in common: files of code, data and base model; versions; facts of the machine."""
    return {section: names for section in SECTIONS if (names := unlike(one[section], other[section]))}


def merged(one: Differences, other: Differences) -> Differences:
    return {section: one.get(section, {}) | other.get(section, {}) for section in {**one, **other}}


def unlike(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What two maps do not say alike, by name."""
    return {name: (one.get(name), other.get(name)) for name in {**one, **other} if one.get(name) != other.get(name)}


def short(names: Mapping[str, Any], most: int = 3) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - most
    return ", ".join([*names][:most]) + (f" and {more} more" if more > 0 else "")


# hashes


def digest(value: Any) -> str:
    """The sha256 of a value, written as JSON in one way only."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def sums(files: Mapping[str, Path]) -> Sums:
    """The sha256 of files, in the order of their names; several at once, as hashing leaves Python's lock to others."""
    names = sorted(files)
    with ThreadPoolExecutor(4) as pool:
        return dict(zip(names, pool.map(sha256, [files[name] for name in names]), strict=True))


def in_memory(weights: Mapping[str, Tensor]) -> str:
    """The sha256 of weights, whatever file they are kept in."""
    import torch

    found = hashlib.sha256()
    for name, weight in sorted(weights.items()):
        found.update(f"{name} {weight.dtype} {list(weight.shape)}".encode())
        found.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()
