"""Where rows come from: the files of a source, by what they are for, and the rows of each file."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from ...errors import DataError
from ..formats.base import Format
from .arrow_rows import arrow, parquet
from .json_rows import array, jsonl
from .row import Bad, Row, refuse
from .stream import PACKED
from .text_rows import plain, table

__all__ = ["READERS", "Bad", "Named", "Row", "Where", "read", "splits"]

log = logging.getLogger("tunesmith")

READERS = {
    ".json": array,
    ".jsonl": jsonl,
    ".csv": table,
    ".tsv": table,
    ".txt": plain,
    ".parquet": parquet,
    ".arrow": arrow,
}
PACKABLE = {".json", ".jsonl", ".csv", ".tsv", ".txt"}
SUFFIXES = (*READERS, *(f"{kind}{packer}" for kind in sorted(PACKABLE) for packer in PACKED))
EXPECTED = f"{', '.join(READERS)}; text files also packed as {' or '.join(PACKED)}"
ABOUT = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}
"""Files that speak of the data."""
SPLITS = {"train": ("train",), "validation": ("validation", "valid", "val", "dev"), "test": ("test", "eval")}
PATTERN = frozenset("*?[")


@dataclass(frozen=True)
class Named:
    """Rows that somebody else has already said how to read."""

    path: Path
    """What they are called."""
    files: dict[str, list[Path]]
    """By split."""
    format: Format
    max_samples: int | None = None

    def __str__(self) -> str:
        return str(self.path)


Where = Path | Named
"""Where rows are."""


def read(files: list[Path], bad: Bad = refuse) -> Iterator[Row]:
    """Every row of the files, in order.

    A row that cannot be read is a sentence for `bad`, which raises it, or returns to leave the row out. A file that is
    broken beyond one row is a DataError.
    """
    for file in files:
        kind = kind_of(file)
        if kind not in READERS:
            raise DataError(f"{file}: cannot be read; expected one of {EXPECTED}")
        yield from READERS[kind](file, bad)


def kind_of(file: Path) -> str:
    """The suffix that tells how a file is read, or nothing."""
    suffixes = [suffix.lower() for suffix in file.suffixes[-2:]]
    if suffixes and suffixes[-1] in PACKED:
        return suffixes[0] if suffixes[0] in PACKABLE else ""
    return suffixes[-1] if suffixes and suffixes[-1] in READERS else ""


def splits(place: Where) -> dict[str, list[Path]]:
    """The files of each split: those of a folder or of a pattern by their names, a single file is all `train`."""
    if isinstance(place, Named):
        return place.files
    if place.is_file():
        return {"train": [place]}
    if (place / "dataset_dict.json").is_file() or (place / "state.json").is_file():
        return saved(place)
    files = files_of(place)
    named = {split: [file for file in files if split_of(file, place) == split] for split in SPLITS}
    found = {split: files for split, files in named.items() if files}
    rest = [file for file in files if split_of(file, place) is None]
    if "train" not in found and rest:
        found["train"] = rest
    elif rest:
        log.info("%s: of no split, and not read: %s", place, listed(rest))
    if not found.get("train"):
        raise DataError(f"{place}: no file to train on; expected one of {EXPECTED}")
    return found


def split_of(file: Path, root: Path) -> str | None:
    """What a file is for: the first word of its name says it, or else the name of a folder that it is in."""
    for name in (re.split("[-_.]", file.name)[0], *reversed(below(file, root)[:-1])):
        for split, words in SPLITS.items():
            if name in words:
                return split
    return None


def below(file: Path, root: Path) -> tuple[str, ...]:
    return file.relative_to(root).parts if file.is_relative_to(root) else (file.name,)


def listed(files: list[Path]) -> str:
    return ", ".join(file.name for file in files[:3]) + (f" and {len(files) - 3} more" if len(files) > 3 else "")


def files_of(place: Path) -> list[Path]:
    """The files of rows in a folder, or those that a pattern such as data/*.jsonl matches."""
    first = next((n for n, part in enumerate(place.parts) if PATTERN & set(part)), None)
    if place.exists() or first is None:
        return inside(place, place.rglob("*"))
    root = Path(*place.parts[:first])
    try:
        return inside(root, root.glob(str(Path(*place.parts[first:]))))
    except ValueError as error:
        raise DataError(f"{place}: is no pattern of files: {error}") from None


def inside(root: Path, found: Iterator[Path]) -> list[Path]:
    """The files of rows among those found, hidden ones left aside. One that leads out of the folder is refused."""
    files = sorted(file for file in found if kind_of(file) and file.name not in ABOUT and not hidden(file, root))
    return [checked(file, root) for file in files if file.is_symlink() or file.is_file()]


def hidden(file: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in below(file, root))


def checked(file: Path, root: Path) -> Path:
    """A file of a folder; a DataError if it is really somewhere else, for whoever made the folder chose that."""
    if within(file, root):
        return file
    raise DataError(f"{file}: leads out of {root}, to {file.resolve()}; name that file itself if you mean it")


def within(file: Path, root: Path) -> bool:
    """Whether a path leads to somewhere in a folder, links followed."""
    real, home = file.resolve(), root.resolve()
    blobs = home.parent.parent / "blobs"  # where Hugging Face's cache keeps what its snapshots link to
    return real.is_relative_to(home) or (home.parent.name == "snapshots" and real.is_relative_to(blobs))


# --- folders that `datasets` has saved --------------------------------------------------------------------------------


def saved(folder: Path) -> dict[str, list[Path]]:
    """The files of a folder that save_to_disk wrote; what else lies there, such as cached results, is not of it."""
    if not (folder / "dataset_dict.json").is_file():
        return {"train": parts(folder)}
    names = listed_in(folder / "dataset_dict.json", lambda said: [*said["splits"]])
    files = {name: parts(checked(folder / name, folder)) for name in names}
    found = {split: [file for name in words for file in files.pop(name, [])] for split, words in SPLITS.items()}
    if not found["train"]:
        raise DataError(f"{folder}: has no split 'train' (has {', '.join(names)}); name the folder of one")
    if files:
        log.info("%s: splits that are not read: %s", folder, ", ".join(files))
    return {split: files for split, files in found.items() if files}


def parts(folder: Path) -> list[Path]:
    about = folder / "state.json"
    files = listed_in(about, lambda said: [entry["filename"] for entry in said["_data_files"]])
    return [checked(folder / file, folder) for file in files]


def listed_in(file: Path, names: Callable[[Any], list[str]]) -> list[str]:
    """The names that a file of save_to_disk lists."""
    try:
        found = names(orjson.loads(file.read_bytes()))
        if found and all(isinstance(name, str) for name in found):
            return found
    except (OSError, ValueError, LookupError, TypeError):
        pass
    raise DataError(f"{file}: does not list what belongs to the dataset; save it again with save_to_disk")
