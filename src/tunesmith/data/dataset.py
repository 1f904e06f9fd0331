"""From a source to the examples to train on and those to measure on."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ..errors import DataError
from .example import Example
from .formats.auto import Auto
from .formats.base import Format, detect
from .source import Named, Place, Row, read, splits

if TYPE_CHECKING:
    from ..run import Data


@dataclass
class Dataset:
    """Examples by use, how they were read, and how many were left out."""

    format: Format
    train: list[Example] = field(default_factory=list)
    validation: list[Example] = field(default_factory=list)
    """Measured while training."""
    test: list[Example] = field(default_factory=list)
    """Measured before and after."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Rows left out, by reason."""
    first_skipped: str = ""
    unread: list[str] = field(default_factory=list)
    """Columns of the first row that the format does not look at."""


def gather(data: Data, where: Place, held_out: Place | None, seed: int) -> Dataset:
    """Read the source at `where` and the held-out rows at `held_out`; where there are none, hold out a share.

    The share is chosen by a hash of each row's content, so a row stays on its side when rows are added.
    """
    dataset = Dataset(where.format if isinstance(where, Named) and isinstance(data.format, Auto) else data.format)

    def bad(sentence: str) -> None:
        leave_out(dataset, "unreadable", sentence, data.on_bad_row)

    rows = {split: list(read(files, bad)) for split, files in splits(where).items()}
    if held_out:
        rows["test"] = [row for files in splits(held_out).values() for row in read(files, bad)]
    if not rows["train"]:
        raise DataError(f"{where}: holds no rows; expected at least one")
    if "test" not in rows and "validation" not in rows:
        chosen = [share(row) < data.eval_size for row in rows["train"]]
        rows["test"] = [row for row, out in zip(rows["train"], chosen, strict=True) if out]
        rows["train"] = [row for row, out in zip(rows["train"], chosen, strict=True) if not out]
    first = (rows["train"] or rows["test"])[0].values
    if isinstance(dataset.format, Auto):
        dataset.format = detect(first, str(where))
    dataset.unread = [column for column in first if column not in dataset.format.read_columns()]
    most = data.max_samples or (where.max_samples if isinstance(where, Named) else None)
    dataset.train = draw(examples(dataset, rows["train"], data.on_bad_row), most, seed)
    test, validation = rows.get("test"), rows.get("validation")
    dataset.test = examples(dataset, test or validation or [], data.on_bad_row)
    dataset.validation = examples(dataset, validation or [], data.on_bad_row) or dataset.test
    if not dataset.train:
        raise DataError(f"{where}: no row is left to train on: {dict(dataset.skipped) or 'all are held out'}")
    return dataset


def examples(dataset: Dataset, rows: list[Row], on_bad_row: str) -> list[Example]:
    found = []
    for origin, values in rows:
        try:
            check(dataset.format, values)
            found.append(replace(dataset.format.read(values), origin=origin))
        except ValueError as error:
            sentence = f"{origin}: cannot be read as {dataset.format.name}: {error}"
            leave_out(dataset, "unreadable", sentence, on_bad_row)
    return found


def check(format_: Format, values: dict) -> None:
    """Refuse a row that lacks a column, or holds what would be lost."""
    missing = [column for column in format_.columns() if column not in values]
    if missing:
        raise ValueError(f"needs the column {', '.join(missing)} (has {', '.join(values)})")
    lost = [column for column in ("images", "videos", "audios", "tools") if values.get(column)]
    if lost:
        raise ValueError(f"holds {', '.join(lost)}, which cannot be learnt from yet")


def leave_out(dataset: Dataset, reason: str, sentence: str, on_bad_row: str) -> None:
    """Count a row that is not used; or refuse the data, if that was asked for."""
    if on_bad_row == "error":
        raise DataError(f"{sentence}; mend the row, or leave such rows out with data.on_bad_row=skip")
    dataset.skipped[reason] += 1
    dataset.first_skipped = dataset.first_skipped or sentence


def draw(items: list[Example], most: int | None, seed: int) -> list[Example]:
    """At most so many of the items, drawn by the seed, in their order."""
    if most is None or len(items) <= most:
        return items
    return [items[n] for n in sorted(random.Random(seed).sample(range(len(items)), most))]


def share(row: Row) -> float:
    """A number from 0 to 1 that depends on a row's content alone."""
    text = json.dumps(row.values, sort_keys=True, ensure_ascii=False, default=str)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) / 2**64
