"""Sequences on the disk: written once, then read where they lie, so that there may be more of them than memory holds.

A folder holds one file a column, little-endian: `ids` (int32), `learn` (a byte) and, where turns count differently,
`weights` (float32) have a value a token; `ends` (int64), `label` (int32, -1 for none), `file` and `line` (int64) one a
sequence, as have, where raters said something, `margin` and `agreement` (float32). `facts.json` has what was found on
the way.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from struct import pack
from typing import Any, overload

import numpy as np

from ..reading.row import place_of
from ..rendering.tokens import RATED, Tokens
from ..task import Task

TOKEN = {"ids": "i", "learn": "B", "weights": "f"}
SEQUENCE = {"ends": "q", "label": "i", "file": "q", "line": "q", **dict.fromkeys(RATED, "f")}
COLUMNS = TOKEN | SEQUENCE
FLUSH = 2**20
"""Tokens that are collected before they are written."""


class Columns:
    """Sequences as columns, in memory: small to send, and quick to write."""

    def __init__(self) -> None:
        self.held = {name: array(code) for name, code in COLUMNS.items()}
        self.labels: dict[str, int] = {}
        self.files: dict[str, int] = {}
        self.weighted = False

    def add(self, tokens: Tokens, label: str | None = None) -> None:
        """Add a sequence; `label` names the class of its text."""
        held = self.held
        if tokens.weights is not None and not self.weighted:
            self.weigh()
        held["ids"].frombytes(pack(f"{len(tokens.ids)}i", *tokens.ids))  # several times quicker than extend
        held["learn"].frombytes(bytes(tokens.learn))
        if self.weighted:
            held["weights"].extend(tokens.weights or [1.0] * len(tokens.ids))
        file, line = place_of(tokens.origin)
        held["ends"].append(len(held["ids"]))
        held["label"].append(-1 if label is None else numbered(self.labels, label))
        held["file"].append(numbered(self.files, file))
        held["line"].append(line)
        for name in RATED:
            held[name].append(getattr(tokens, name))

    def weigh(self) -> None:
        """Give every token that is there a weight of 1."""
        self.weighted = True
        self.held["weights"].frombytes(np.ones(len(self.held["ids"]), np.float32).tobytes())


def numbered(names: dict[str, int], name: str) -> int:
    return names.setdefault(name, len(names))


class Writer:
    """Writes sequences into an empty folder, one after another."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.stack = folder, ExitStack()
        self.open = {name: self.stack.enter_context((folder / name).open("wb")) for name in COLUMNS}
        self.held = {name: array(code) for name, code in COLUMNS.items()}
        self.labels: dict[str, int] = {}
        self.files: dict[str, int] = {}
        self.tokens = self.highest = 0
        self.weighted = False
        self.rated: set[str] = set()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *error: object) -> None:
        self.stack.close()

    def add(self, some: Columns) -> None:
        """Write the sequences that come next."""
        if not some.held["ends"]:
            return
        if some.weighted and not self.weighted:
            self.weighted = True  # what was written before counts 1
            np.ones(self.tokens - len(self.held["ids"]), np.float32).astype(little("weights")).tofile(
                self.open["weights"]
            )
            self.held["weights"].frombytes(np.ones(len(self.held["ids"]), np.float32).tobytes())
        if self.weighted and not some.weighted:
            some.weigh()
        files, labels = ([numbered(mine, name) for name in theirs] for mine, theirs in self.names(some))
        for name in ("ids", "learn", "weights", "line", *RATED):
            self.held[name] += some.held[name]
        self.rated |= {name for name, usual in RATED.items() if {*some.held[name]} != {usual}}
        self.held["ends"].frombytes((np.array(some.held["ends"]) + self.tokens).tobytes())
        self.held["file"].extend(map(files.__getitem__, some.held["file"]))
        self.held["label"].extend([labels[label] if label >= 0 else -1 for label in some.held["label"]])
        self.tokens += len(some.held["ids"])
        self.highest = max(self.highest, int(np.array(some.held["ids"]).max()))
        if len(self.held["ids"]) >= FLUSH:
            self.flush()

    def names(self, some: Columns) -> tuple[tuple[dict[str, int], dict[str, int]], ...]:
        return (self.files, some.files), (self.labels, some.labels)

    def flush(self) -> None:
        for name, values in self.held.items():
            np.frombuffer(values, dtype=values.typecode).astype(little(name), copy=False).tofile(self.open[name])
            del values[:]

    def close(self, facts: dict[str, Any]) -> None:
        """Write what is left, and `facts` beside it."""
        self.flush()
        self.stack.close()
        for name in {"weights", *RATED} - self.rated - ({"weights"} if self.weighted else set()):
            (self.folder / name).unlink()
        own = {"labels": list(self.labels), "files": list(self.files), "highest": self.highest}
        (self.folder / "facts.json").write_text(json.dumps(facts | own, ensure_ascii=False), encoding="utf-8")


def little(name: str) -> np.dtype:
    return np.dtype(COLUMNS[name]).newbyteorder("<")


class Many(Sequence[Tokens]):
    """Sequences of which each is made when it is asked for."""

    def one(self, number: int) -> Tokens:
        raise NotImplementedError

    @property
    def learnt(self) -> list[int]:
        """Tokens to be learnt in each, its first aside."""
        return [sum(one.learn[1:]) for one in self]

    @overload
    def __getitem__(self, index: int) -> Tokens: ...
    @overload
    def __getitem__(self, index: slice) -> list[Tokens]: ...
    def __getitem__(self, index: int | slice) -> Tokens | list[Tokens]:
        if isinstance(index, slice):
            return [self.one(number) for number in range(*index.indices(len(self)))]
        return self.one(range(len(self))[index])


class Stored(Many):
    """The sequences of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.facts: dict[str, Any] = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        there = [name for name in COLUMNS if (folder / name).exists()]
        self.columns = {name: self.column(name) for name in there}
        self.ends = self.columns["ends"]

    def column(self, name: str) -> np.ndarray:
        file, kind = self.folder / name, little(name)
        if not file.stat().st_size:  # nothing cannot be mapped
            return np.empty(0, kind)
        return np.asarray(np.memmap(file, dtype=kind, mode="r"))

    def __len__(self) -> int:
        return len(self.ends)

    def one(self, number: int) -> Tokens:
        here = slice(int(self.ends[number - 1]) if number else 0, int(self.ends[number]))
        label, line = int(self.columns["label"][number]), int(self.columns["line"][number])
        file = self.facts["files"][int(self.columns["file"][number])]
        weights = self.columns["weights"][here].tolist() if "weights" in self.columns else None
        return Tokens(
            self.columns["ids"][here].tolist(),
            self.columns["learn"][here].astype(bool).tolist(),
            label=None if label < 0 else label,
            weights=weights,
            origin=file if line < 0 else f"{file}:{line}",
            margin=float(self.columns["margin"][number]) if "margin" in self.columns else Tokens.margin,
            agreement=float(self.columns["agreement"][number]) if "agreement" in self.columns else Tokens.agreement,
            grade=float(self.columns["grade"][number]) if "grade" in self.columns else Tokens.grade,
        )

    @property
    def lengths(self) -> np.ndarray:
        """[N] tokens in each sequence."""
        return np.diff(self.ends, prepend=0)

    @property
    def targets(self) -> np.ndarray:
        """[N] tokens to be learnt in each sequence; a first one is not, since nothing stands before it."""
        learn, starts = self.columns["learn"], self.ends - self.lengths
        return np.add.reduceat(learn, starts, dtype=np.int64) - learn[starts]

    @property
    def fingerprint(self) -> str:
        """A hash of all that is learnt from, of the files as they are now."""
        sums = []
        for name in self.columns.keys() - {"file", "line"}:
            with (self.folder / name).open("rb") as content:
                sums.append(f"{name} {hashlib.file_digest(content, 'sha256').hexdigest()}")
        return hashlib.sha256("\n".join([*sorted(sums), *self.facts["labels"]]).encode()).hexdigest()


class Mixed(Many):
    """Sequences of several folders, in an order of their own; `tasks` has of each folder the task, or None, and
    `labels` are the classes where there are no tasks."""

    def __init__(
        self,
        parts: Sequence[Stored],
        part: np.ndarray,
        row: np.ndarray,
        tasks: Sequence[Task | None],
        labels: Sequence[str] = (),
    ) -> None:
        self.parts, self.part, self.row, self.tasks = parts, part, row, tasks
        self.said = [said_by(task, one.facts["labels"], labels) for task, one in zip(tasks, parts, strict=True)]

    def __len__(self) -> int:
        return len(self.row)

    def one(self, number: int) -> Tokens:
        part = int(self.part[number])
        tokens, task = self.parts[part][int(self.row[number])], self.tasks[part]
        if tokens.label is None:
            return tokens if task is None else replace(tokens, task=task)
        return replace(tokens, **self.said[part][tokens.label], task=task)

    @property
    def lengths(self) -> list[int]:
        """Tokens in each sequence."""
        return self.each([one.lengths for one in self.parts]).tolist()

    @property
    def targets(self) -> int:
        """Tokens to be learnt in all sequences."""
        return sum(self.learnt)

    @property
    def learnt(self) -> list[int]:
        """Tokens to be learnt in each."""
        return self.each([one.targets for one in self.parts]).tolist()

    def each(self, found: Sequence[np.ndarray]) -> np.ndarray:
        """[N] what is found of each sequence, given what is of each source's."""
        return np.concatenate(found)[self.row + np.cumsum([0, *map(len, self.parts)])[self.part]]

    @property
    def highest(self) -> int:
        """The highest token that occurs."""
        return max(one.facts["highest"] for one in self.parts)

    @property
    def fingerprint(self) -> str:
        """A hash of all that is learnt from, and of its order."""
        made = hashlib.sha256("\n".join(one.fingerprint for one in self.parts).encode())
        made.update(self.part.tobytes() + self.row.tobytes() + json.dumps(self.said).encode())
        made.update(repr([task for task in self.tasks if task and not task.alone]).encode())
        return made.hexdigest()


def said_by(task: Task | None, names: Sequence[str], labels: Sequence[str]) -> list[dict[str, Any]]:
    """Of every class that a folder names, what a sequence with it has: its number in the task, or marks of several."""
    if task and task.kind == "several":
        return [{"label": None, "marks": task.marks(tuple(json.loads(name)))} for name in names]
    number = {label: at for at, label in enumerate(task.labels if task else labels)}
    return [{"label": number[name]} for name in names]


def sources(sequences: Sequence[Tokens]) -> list[int]:
    """Of each sequence, the number of the source that it comes from."""
    return sequences.part.tolist() if isinstance(sequences, Mixed) else [0] * len(sequences)


def highest_token(sequences: Iterable[Tokens]) -> int:
    """The highest token that occurs."""
    return sequences.highest if isinstance(sequences, Mixed) else max(max(one.ids) for one in sequences)


def learnt(sequences: Iterable[Tokens]) -> list[int]:
    """Tokens to be learnt in each sequence, its first aside, without reading those on the disk."""
    return sequences.learnt if isinstance(sequences, Many) else [sum(one.learn[1:]) for one in sequences]


def lengths(sequences: Iterable[Tokens]) -> list[int]:
    """Tokens in each sequence, without reading those on the disk."""
    return sequences.lengths if isinstance(sequences, Mixed) else [len(one.ids) for one in sequences]
