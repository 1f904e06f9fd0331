"""A copy of some data without some rows, in the same kind of file; what stays is copied, never written anew."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Set
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import DataError
from ..files import whole
from .source import skip


class Cut(NamedTuple):
    """A text in pieces: what stands before the rows, the rows, and what stands after."""

    head: str
    rows: list[str]
    tail: str = ""
    between: bool = False
    """Whether a row begins with what parts it from the one before."""


def copy(file: Path, out: Path, leave: Set[int], rows: int) -> list[Any]:
    """Write a file without the rows of these numbers, and return these; `rows` were read from it."""
    if file.suffix.lower() == ".parquet":
        return copy_parquet(file, out, leave)
    reader = CUTS.get(file.suffix.lower())
    if reader is None:
        raise DataError(f"{file}: cannot be written again; cleaned copies are made of {', '.join(CUTS)} and .parquet")
    with file.open(encoding="utf-8", newline="") as opened:
        text = opened.read()
    mark = "\ufeff" if text.startswith("\ufeff") else ""
    cut = reader(text.removeprefix(mark))
    if len(cut.rows) != rows:
        raise DataError(f"{file}: only {rows:,} of its {len(cut.rows):,} rows could be read; mend the file first")
    kept = [row for number, row in enumerate(cut.rows) if number not in leave]
    if cut.between and kept and 0 in leave:
        kept[0] = kept[0].lstrip().removeprefix(",").lstrip()
    with whole(out) as beside, beside.open("w", encoding="utf-8", newline="") as opened:
        opened.writelines([mark, cut.head, *kept, cut.tail])
    return [cut.rows[number] for number in sorted(leave)]


def lines(text: str) -> Cut:
    """Rows that are lines; an empty line stays with the row before it."""
    head, rows = "", []
    for line in re.findall(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+", text):
        if line.strip():
            rows.append(line)
        elif rows:
            rows[-1] += line
        else:
            head += line
    return Cut(head, rows)


def array(text: str) -> Cut:
    """Rows that are objects of a JSON array, or lines of objects."""
    at = skip(text, 0, "")
    if text[at : at + 1] != "[":
        return lines(text)
    decoder, at = json.JSONDecoder(), at + 1
    head, rows = text[:at], []
    while text[skip(text, at, ",")] != "]":
        _, end = decoder.raw_decode(text, skip(text, at, ","))
        rows.append(text[at:end])
        at = end
    return Cut(head, rows, text[at:], between=True)


def table(text: str, delimiter: str) -> Cut:
    """Rows that are records of a CSV file; one may go over several lines."""
    taken: list[str] = []

    def hand() -> Iterator[str]:
        for line in text.splitlines(keepends=True):
            taken.append(line)
            yield line

    records = []
    for _ in csv.reader(hand(), delimiter=delimiter):
        records.append("".join(taken))
        taken.clear()
    return Cut("".join(records[:1]), records[1:])


CUTS: dict[str, Callable[[str], Cut]] = {
    ".json": array,
    ".jsonl": lines,
    ".csv": partial(table, delimiter=","),
    ".tsv": partial(table, delimiter="\t"),
    ".txt": lines,
}


def copy_parquet(file: Path, out: Path, leave: Set[int]) -> list[Any]:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile, ParquetWriter

    source, number, left = ParquetFile(file), 0, []
    first = source.metadata.row_group(0).column(0).compression if source.metadata.num_row_groups else "snappy"
    with whole(out) as beside, ParquetWriter(beside, source.schema_arrow, compression=first.lower()) as sink:
        for batch in source.iter_batches():
            keep = [number + at not in leave for at in range(batch.num_rows)]
            left += batch.filter(pa.array([not kept for kept in keep])).to_pylist()
            sink.write_batch(batch.filter(pa.array(keep)))
            number += batch.num_rows
    return left
