"""Columns of numbers on the disk, little-endian: written a piece at a time, read where they lie."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import numpy as np

FLUSH = 2**20
"""Values of a column that are collected before they are written."""


class Growing:
    """Writes columns into a folder, one file each; `kinds` gives of each the letter that `array` has for its type.

    Who fills `held` asks for `flush` now and then.
    """

    def __init__(self, folder: Path, kinds: Mapping[str, str]) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.stack = folder, ExitStack()
        self.open = {name: self.stack.enter_context((folder / name).open("wb")) for name in kinds}
        self.held = {name: array(kind) for name, kind in kinds.items()}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stack.close()

    def flush(self) -> None:
        """Write what is held."""
        for name, values in self.held.items():
            kind = little(values.typecode)
            np.frombuffer(values, dtype=values.typecode).astype(kind, copy=False).tofile(self.open[name])
            del values[:]


def little(kind: str) -> np.dtype:
    """How a column of this type lies on the disk."""
    return np.dtype(kind).newbyteorder("<")


def mapped(file: Path, kind: str) -> np.ndarray:
    """A column, read where it lies."""
    if not file.stat().st_size:  # nothing cannot be mapped
        return np.empty(0, little(kind))
    return np.asarray(np.memmap(file, dtype=little(kind), mode="r"))
