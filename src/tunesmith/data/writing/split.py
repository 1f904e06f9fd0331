"""Rows parted into files to train on, to validate on and to test on."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from ...errors import DataError, RecipeError
from ...files import whole
from ..dataset import digest, number
from ..reading.configs import chosen
from ..reading.source import Where, read


def part(where: Where, out: Path, shares: dict[str, float], split: str | None = None) -> dict[str, int]:
    """Write every row of a source, or of one split, to `train.jsonl` of a folder, or to that of a share; how many went
    where.

    A hash of a row's content decides, so that rows stay where they are when others are added, and copies stay together.
    The folder must not be there.
    """
    if sum(shares.values()) >= 1:
        raise RecipeError(f"--test, --validation: come to {sum(shares.values()):g}; nothing would be left to train on")
    if out.exists():
        raise DataError(f"{out}: is there already; name another folder")
    counts: Counter[str] = Counter()
    found = chosen(where, split=split)
    with whole(out) as beside:
        beside.mkdir(parents=True)
        with ExitStack() as stack:
            paths = {name: beside / f"{name}.jsonl" for name in NAMES}
            files = {name: stack.enter_context(path.open("w", encoding="utf-8")) for name, path in paths.items()}
            for row in read(found["train"] if split else [file for files in found.values() for file in files]):
                name = side(number(digest(row)) / 2**64, shares)
                try:
                    text = json.dumps(row.values, ensure_ascii=False, allow_nan=False)
                except (TypeError, ValueError) as error:
                    raise DataError(f"{row.origin}: cannot be written as JSON: {error}") from None
                files[name].write(text + "\n")
                counts[name] += 1
        for name in NAMES:
            if not counts[name]:
                paths[name].unlink()
        if not counts["train"]:
            raise DataError(f"{where}: no row is left to train on; lower --test and --validation")
    return dict(counts)


NAMES = ("train", "validation", "test")


def side(place: float, shares: dict[str, float]) -> str:
    """Where a row belongs whose hash stands at this place between 0 and 1."""
    for name, share in shares.items():
        if place < share:
            return name
        place -= share
    return "train"
