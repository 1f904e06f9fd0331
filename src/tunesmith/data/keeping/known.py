"""Rows that are trained on and held out as well, whichever sources they stand in.

What each row says is kept as a hash beside the sequences of its source, with its place. Those of the held-out rows fit
into memory; the others, of which there may be more than that, are passed by them a piece at a time.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import numpy as np

from ..item import Item
from ..lint.copies import Leakage, held_out_in, leaked
from ..lint.report import SHOWN, Found
from ..reading.row import place_of
from .columns import FLUSH, Growing, mapped
from .store import Stored, numbered

KINDS = {"said": "Q", "file": "q", "line": "q"}
SIDES = ("trained", "held out")
FOLDER = "rows"


class Rows:
    """What some rows say, in memory: small to send."""

    def __init__(self) -> None:
        self.sides = [{name: array(kind) for name, kind in KINDS.items()} for _ in SIDES]
        self.files: dict[str, int] = {}

    def add(self, item: Item) -> None:
        """Note a row, if it asks anything; one that cannot be learnt, or is left out for its length, does not count."""
        if item.fault or item.too_long or not item.asked:
            return
        side = self.sides[item.split != "train"]
        file, line = place_of(item.row.origin)
        side["said"].append(item.asked ^ item.answered)
        side["file"].append(numbered(self.files, file))
        side["line"].append(line)


class Noted:
    """Writes what rows say into a folder within that of their sequences."""

    def __init__(self, folder: Path) -> None:
        self.stack = ExitStack()
        (folder / FOLDER).mkdir()
        self.sides = [self.stack.enter_context(Growing(folder / FOLDER / side, KINDS)) for side in SIDES]
        self.files: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stack.close()

    def add(self, some: Rows) -> None:
        """Write the rows that come next."""
        files = [numbered(self.files, name) for name in some.files]
        for side, more in zip(self.sides, some.sides, strict=True):
            side.held["said"] += more["said"]
            side.held["line"] += more["line"]
            side.held["file"].extend(map(files.__getitem__, more["file"]))
            if len(side.held["said"]) >= FLUSH:
                side.flush()

    def close(self) -> list[str]:
        """Write what is left; the files by whose numbers places were noted."""
        for side in self.sides:
            side.flush()
        self.stack.close()
        return [*self.files]


class Side:
    """The rows of a source that are trained on, or those that are held out."""

    def __init__(self, part: Stored, side: str) -> None:
        self.files: list[str] = part.facts["read"]
        folder = part.folder / FOLDER / side
        self.said, self.file, self.line = (mapped(folder / name, kind) for name, kind in KINDS.items())

    def __len__(self) -> int:
        return len(self.said)

    def origin(self, number: int) -> str:
        """Where a row stands, as file:line."""
        file, line = self.files[int(self.file[number])], int(self.line[number])
        return file if line < 0 else f"{file}:{line}"


def leaks(parts: Sequence[Stored]) -> tuple[Found | None, int]:
    """The rows of all sources that are trained on and stand among those held out, and how many rows were looked at."""
    trained, held_out = ([Side(part, side) for part in parts] for side in SIDES)
    ends = np.cumsum([len(side) for side in held_out])
    known, first, times = np.unique(
        np.concatenate([side.said for side in held_out]), return_index=True, return_counts=True
    )

    def there(at: int) -> str:
        """Where the held-out rows begin that say this."""
        one = int(np.searchsorted(ends, first[at], side="right"))
        return held_out[one].origin(int(first[at] - (ends[one] - len(held_out[one]))))

    seen = np.zeros(len(known), bool)
    numbers, examples, before = array("q"), [], 0
    for side in trained if len(known) else ():
        for start in range(0, len(side), FLUSH):
            piece = side.said[start : start + FLUSH]
            at = np.minimum(np.searchsorted(known, piece), len(known) - 1)
            rows = np.flatnonzero(known[at] == piece)
            seen[at[rows]] = True
            numbers.extend((before + start + rows).tolist())
            for row in rows[: SHOWN - len(examples)].tolist():
                examples.append((side.origin(start + row), held_out_in(there(int(at[row])))))
        before += len(side)
    count = sum(map(len, (*trained, *held_out)))
    if not len(numbers):
        return None, count
    severity = Leakage.severity if leaked(int(times[seen].sum()), int(times.sum())) else "warning"
    return Found(Leakage(), severity, numbers, examples), count
