"""Data folders of LLaMA-Factory: their dataset_info.json says which file is which dataset, and how it is read.

A dataset is named as if it were in the folder: `data/alpaca_en_demo`. What is said of it means what it means there: a
column that `columns` leaves out is not read, whatever the file has. One thing is different, and said when it happens: a
`num_samples` that is more than there are rows takes each once, where LLaMA-Factory draws some of them again.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ...config.registry import did_you_mean
from ...errors import DataError
from ..formats.base import Format, format_
from .configs import chosen, configs
from .json_rows import fault, value
from .source import Named, checked, files_of, splits
from .stream import opened

log = logging.getLogger("tunesmith")

NAME = "dataset_info.json"
HUBS = {"hf_hub_url": "", "ms_hub_url": "modelscope:"}
"""Keys of an entry that name a repository, and how the hub is called in a recipe."""
REFUSED = {
    "script_url": "a script, and no code that comes with data is run; save what it gives as Parquet and name that",
    "cloud_file_name": "a file in a cloud's storage; download it and name it as file_name",
    "om_hub_url": "a repository on a hub that is not known here; download it and name it as file_name",
}
SOURCES = (*HUBS, *REFUSED, "file_name")
KEYS = (*SOURCES, "formatting", "ranking", "subset", "split", "folder", "num_samples", "columns", "tags")
BESIDE = ("system", "tools", "images", "videos", "audios")
ALPACA = {"prompt": "instruction", "query": "input", "response": "output"}
COLUMNS = (*ALPACA, "history", "messages", *BESIDE, "chosen", "rejected", "kto_tag")
TAGS = ("role_tag", "content_tag", "user_tag", "assistant_tag", "observation_tag", "function_tag", "system_tag")
FORMATTINGS = {"alpaca": "alpaca", "sharegpt": "sharegpt", "openai": "messages"}

Entry = dict[str, Any]
Hub = Callable[[str], Path]
"""Gives the folder of a repository on a hub."""


def named(path: Path, hub: Hub) -> Named | None:
    """The dataset that a path such as data/alpaca_en_demo names, if its folder has a dataset_info.json of this kind."""
    if path.is_dir() and (there := entries(path / NAME)):
        raise DataError(f"{path}: holds several datasets; name one, as in data.path={path}/NAME: {', '.join(there)}")
    known = entries(path.parent / NAME)
    if path.name in known:
        return Said(path, known[path.name]).dataset(hub)
    if not known or path.exists() or set("*?[") & set(path.name):
        return None
    raise DataError(f"{path.parent / NAME}: has no dataset '{path.name}' ({did_you_mean(path.name, known)})")


def entries(file: Path) -> dict[str, Entry]:
    """What a dataset_info.json says of each dataset; nothing if it is not there, or is a file of `datasets`."""
    if not file.is_file():
        return {}
    with opened(file) as content:
        text = content.read()
    try:
        said = value(text)
    except ValueError as error:
        raise DataError(fault(file, 1, text, error)) from None
    known = isinstance(said, dict) and any(isinstance(one, dict) and set(SOURCES) & one.keys() for one in said.values())
    return said if known else {}


class Said:
    """What is said of one dataset."""

    def __init__(self, path: Path, entry: Entry) -> None:
        self.path, self.folder = path, path.parent
        self.where = f"{path.parent / NAME}: {path.name}"
        if not isinstance(entry, dict):
            raise self.wrong("must be an object")
        self.check(entry, KEYS)
        self.entry = entry
        self.columns = self.words("columns", COLUMNS)
        self.tags = self.words("tags", TAGS)

    def wrong(self, why: str) -> DataError:
        return DataError(f"{self.where}: {why}")

    def check(self, given: Mapping[str, Any], known: tuple[str, ...]) -> None:
        """Refuse a key that is a misspelt one; say which others are not read."""
        strange = [key for key in given if key not in known]
        for key in strange:
            if near := get_close_matches(key, known, n=1):
                raise self.wrong(f"unknown key '{key}'; did you mean '{near[0]}'?")
        if strange:
            log.info("%s: not read: %s", self.where, ", ".join(strange))

    def words(self, key: str, known: tuple[str, ...]) -> dict[str, str]:
        """An object of texts of the entry."""
        given = self.entry.get(key) or {}
        if not isinstance(given, dict) or not all(word is None or isinstance(word, str) for word in given.values()):
            raise self.wrong(f"'{key}' must be an object of names (got {given!r:.60})")
        self.check(given, known)
        return {name: word for name, word in given.items() if word and name in known}

    def text(self, key: str) -> str | None:
        given = self.entry.get(key)
        if given is not None and not isinstance(given, str):
            raise self.wrong(f"'{key}' must be text (got {given!r:.60})")
        return given

    def dataset(self, hub: Hub) -> Named:
        return Named(self.path, self.files(hub), self.format(), self.number())

    def number(self) -> int | None:
        number = self.entry.get("num_samples")
        if number is not None and (type(number) is not int or number < 1):
            raise self.wrong(f"'num_samples' must be a whole number of at least 1 (got {number!r})")
        return number

    # --- which files --------------------------------------------------------------------------------------------------

    def files(self, hub: Hub) -> dict[str, list[Path]]:
        repositories = [key for key in HUBS if self.text(key)]
        if os.environ.get("USE_MODELSCOPE_HUB", "").lower() in ("1", "true", "y"):  # as it is asked for there
            repositories.reverse()
        if repositories:
            key = repositories[0]
            return self.of_hub(hub(f"{HUBS[key]}{self.text(key)}"))
        for key, why in REFUSED.items():
            if self.text(key):
                raise self.wrong(f"'{key}' names {why}")
        name = self.text("file_name")
        if not name:
            raise self.wrong(f"names no source; expected one of {', '.join((*HUBS, 'file_name'))}")
        if self.text("split") not in (None, "train") or self.text("subset"):
            raise self.wrong("'split' and 'subset' choose within a repository on a hub; a file has none")
        file = checked(self.folder / name, self.folder)
        if not file.exists():
            raise self.wrong(f"{file} is not there; copy it there, or mend 'file_name'")
        return splits(file)

    def of_hub(self, root: Path) -> dict[str, list[Path]]:
        """The files of a folder that was downloaded."""
        if configs(root) and not self.text("folder"):
            return {"train": chosen(root, self.text("subset"), self.text("split"))["train"]}
        for key in ("folder", "subset"):
            if inner := self.text(key):
                root = checked(root / inner, root)
                if not root.is_dir():
                    raise self.wrong(f"'{key}': the repository has no folder {inner}; name its files as data.path")
        split = self.text("split") or "train"
        if not re.fullmatch(r"[\w.-]+", split):
            raise self.wrong(f"'split' must be a name (got {split!r}); for fewer rows set num_samples")
        if split == "train":
            return splits(root)
        fit = [
            file
            for file in files_of(root)
            if re.split(r"[-.]", file.name)[0] == split or split in file.relative_to(root).parts[:-1]
        ]
        if not fit:
            raise self.wrong(f"'split': no file of the repository has the name {split}")
        return {"train": fit}

    # --- how a row is read --------------------------------------------------------------------------------------------

    def format(self) -> Format:
        """The format of the rows, with their columns."""
        formatting = self.text("formatting") or "alpaca"
        if formatting not in FORMATTINGS:
            raise self.wrong(f"unknown formatting '{formatting}'; {did_you_mean(formatting, FORMATTINGS)}")
        ranking = self.entry.get("ranking") or False
        if not isinstance(ranking, bool):
            raise self.wrong(f"'ranking' must be true or false (got {ranking!r})")
        beside = {name: self.columns.get(name) for name in BESIDE}
        if formatting == "alpaca":
            return self.alpaca(ranking, beside)
        return self.dialogue(FORMATTINGS[formatting], ranking, beside | self.tags)

    def alpaca(self, ranking: bool, more: dict[str, str | None]) -> Format:
        given = "columns" in self.entry
        prompt, query, response = (self.columns.get(name, None if given else ALPACA[name]) for name in ALPACA)
        if prompt is None:
            raise self.wrong("'columns' must name a prompt")
        more |= {"input": query, "history": self.columns.get("history")}
        if ranking:
            return self.made("preference", prompt=prompt, **self.both(), **more)
        if label := self.columns.get("kto_tag"):
            return self.made("feedback", prompt=prompt, completion=self.needed("response"), label=label, **more)
        if response is not None:
            return self.made("alpaca", instruction=prompt, output=response, **more)
        if any(more.values()):
            raise self.wrong("'columns' must name a response, or a prompt alone, of texts to be continued")
        return self.made("text", text=prompt)

    def dialogue(self, kind: str, ranking: bool, more: dict[str, str | None]) -> Format:
        messages = self.needed("messages") if "columns" in self.entry else "conversations"
        if ranking:
            return self.made("preference", prompt=messages, **self.both(), **more)
        if label := self.columns.get("kto_tag"):
            return self.made("feedback", prompt=messages, completion=None, label=label, **more)
        return self.made(kind, **{"conversations" if kind == "sharegpt" else "messages": messages}, **more)

    def both(self) -> dict[str, str]:
        return {"chosen": self.needed("chosen"), "rejected": self.needed("rejected")}

    def needed(self, column: str) -> str:
        if found := self.columns.get(column):
            return found
        if "columns" not in self.entry and column in ALPACA:
            return ALPACA[column]
        raise self.wrong(f"'columns' must name {column}, since those that it leaves out are not read")

    def made(self, name: str, **options: str | None) -> Format:
        kind: Any = format_[name]
        return kind(**options)
