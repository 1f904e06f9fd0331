"""From a source to the examples to train on and those to measure on."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DataError
from .detect import LOOKED_AT, detect
from .example import Example
from .formats.auto import Auto
from .formats.base import Format
from .media import check_media
from .source import Named, Place, Row, read, splits

if TYPE_CHECKING:
    from ..run import Data


@dataclass
class Dataset:
    """Examples by use, how they were read, and how many were left out."""

    format: Format
    reading: str
    """How the rows are read, and why so."""
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
    format_ = where.format if isinstance(where, Named) and isinstance(data.format, Auto) else data.format
    dataset = Dataset(format_, format_.described())

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
    first = [row.values for row in (rows["train"] or rows["test"])[:LOOKED_AT]]
    if isinstance(dataset.format, Auto):
        dataset.format, dataset.reading = detect(first, str(where))
    dataset.unread = [column for column in first[0] if column not in dataset.format.read_columns()]
    most = data.max_samples or (where.max_samples if isinstance(where, Named) else None)
    dataset.train = draw(examples(dataset, rows["train"], data), most, seed)
    test, validation = rows.get("test"), rows.get("validation")
    dataset.test = examples(dataset, test or validation or [], data)
    dataset.validation = examples(dataset, validation or [], data) or dataset.test
    if not dataset.train:
        raise DataError(f"{where}: no row is left to train on: {dict(dataset.skipped) or 'all are held out'}")
    return dataset


def examples(dataset: Dataset, rows: list[Row], data: Data) -> list[Example]:
    found = []
    for origin, values in rows:
        try:
            made = [replace(example, origin=origin) for example in dataset.format.examples(values)]
            for example in made:
                check_media(example.media, Path(data.media_dir or Path(origin).parent).expanduser())
        except ValueError as error:
            sentence = f"{origin}: cannot be read as {dataset.format.name}: {error}"
            leave_out(dataset, "unreadable", sentence, data.on_bad_row)
        else:
            found += made
    return found


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
