"""Datasets whose README.md lists configs at its head, each with its files by split, as `datasets` reads them."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...config.registry import did_you_mean
from ...config.yaml import read_yaml
from ...errors import DataError, RecipeError
from ..formats.base import shown
from .source import SPLITS, Where, files_of, inside, splits

log = logging.getLogger("tunesmith")

HEAD = re.compile(r"\A---[ \t]*\n(.*?)^---[ \t]*$", re.DOTALL | re.MULTILINE)
USUAL = "default"
"""The config that is taken where none is named."""

Files = dict[str, list[Path]]
"""Files by split."""


def chosen(where: Where, name: str | None = None, split: str | None = None) -> Files:
    """The files of a source by what they are for: of the config `name`, learnt from `split`, where these are given."""
    known = configs(where) if isinstance(where, Path) and where.is_dir() else {}
    if name and not known:
        raise RecipeError(f"data.subset: {where} has no README.md that lists configs; leave it out, and name its files")
    if not known:
        return meant(where, splits(where), split) if split else splits(where)
    assert isinstance(where, Path)
    if name is None:
        name = next(iter(known)) if len(known) == 1 else next((n for n, one in known.items() if one.get(USUAL)), USUAL)
    if name not in known:
        raise DataError(f"{where}: choose a config with data.subset; it has {', '.join(known)}{near(name, known)}")
    return meant(where, files(where, name, known[name]), split)


def near(name: str, known: Mapping[str, Any]) -> str:
    return "" if name == USUAL else f", and no '{name}' ({did_you_mean(name, known)})"


def configs(folder: Path) -> dict[str, dict[str, Any]]:
    """What a folder's README.md says of each config; nothing if it lists none."""
    readme = folder / "README.md"
    if not readme.is_file():
        return {}
    text = readme.read_text(encoding="utf-8-sig", errors="replace")
    head = HEAD.match(text.replace("\r\n", "\n"))
    if not head or not re.search(r"^configs:", head[1], re.MULTILINE):
        return {}
    try:
        said = read_yaml(f"\n{head[1]}", str(readme)).value["configs"]
    except RecipeError as error:
        raise DataError(str(error)) from None
    if not isinstance(said, list) or not all(isinstance(one, dict) for one in said):
        raise DataError(f"{readme}: 'configs' must be a list of objects with config_name and data_files")
    return {str(one.get("config_name", USUAL)): one for one in said}


def files(folder: Path, name: str, config: Mapping[str, Any]) -> Files:
    """The files of a config by split."""
    root, given = folder, config.get("data_files")
    if inner := config.get("data_dir"):
        [root] = below(folder, str(inner), name, folders=True)
    match given:
        case None:
            return splits(root)
        case str() | [str(), *_]:
            pairs = [("train", given)]
        case [*several] if several and all(
            isinstance(one, dict) and {"split", "path"} <= one.keys() for one in several
        ):
            pairs = [(one["split"], one["path"]) for one in several]
        case _:
            raise DataError(
                f"{folder / 'README.md'}: data_files of the config {name} must be a pattern, a list of them, or a list"
                f" of objects with split and path (got {shown(given)})"
            )
    found: Files = {}
    for split, patterns in pairs:
        for pattern in patterns if isinstance(patterns, list) else [patterns]:
            found.setdefault(str(split), []).extend(below(root, str(pattern), name))
    return found


def below(root: Path, pattern: str, name: str, folders: bool = False) -> list[Path]:
    """The files of rows in a folder that a pattern of a config matches; with `folders`, the folder that it names."""
    where = f"{root}: its README.md says '{pattern}' of the config {name}"
    if ".." in Path(pattern).parts or Path(pattern).is_absolute():
        raise DataError(f"{where}, which leads out of the folder; name those files in data.path if you mean them")
    if (root / pattern).is_dir():
        found = [root / pattern] if folders else files_of(root / pattern)
    else:
        found = [] if folders else inside(root, root.glob(pattern))
    if not found:
        raise DataError(f"{where}, and no {'folder' if folders else 'file of rows'} there has that name; get it again")
    return found


def meant(where: Where, found: Files, split: str | None) -> Files:
    """Files by what they are for: to train on the split that is named, or is called so; held out are its fellows.

    The fellows of train_sft are test_sft and validation_sft.
    """
    kinds = {name: parted(name) for name in found}
    if split is None:
        train = [name for name, (kind, _) in kinds.items() if kind == "train"]
        train = [name for name in train if name == "train"] or train
        train = train or [name for name, (kind, _) in kinds.items() if kind is None]
        split = train[0] if len(train) == 1 else None
    if split not in found:
        raise DataError(f"{where}: choose a split to train on with data.split; it has {', '.join(found)}")
    made = {"train": found[split]}
    for name, (kind, rest) in kinds.items():
        if name != split and kind in ("validation", "test") and rest == kinds[split][1]:
            made.setdefault(kind, []).extend(found[name])
        elif name != split:
            log.info("%s: a split that is not read: %s", where, name)
    return made


def parted(split: str) -> tuple[str | None, str]:
    """What a split is for, as the first word of its name says, and the rest of the name."""
    word = re.split("[-_.]", split)[0]
    return next((kind for kind, words in SPLITS.items() if word in words), None), split[len(word) :]
