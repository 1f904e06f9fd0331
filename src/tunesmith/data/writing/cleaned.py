"""A copy of some data without some rows, in the same kind of file; what stays is copied, never written anew."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Set
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import DataError
from ...files import whole

Spot = tuple[int, int]
"""A row's line, and how many rows begin before it on that line."""


class Cut(NamedTuple):
    """A text in pieces: what stands before the rows, the rows by where they begin, and what stands after."""

    head: str
    rows: dict[Spot, str]
    tail: str = ""
    between: bool = False
    """Whether a row begins with what parts it from the one before."""


def copy(file: Path, out: Path, leave: Set[Spot]) -> list[Any]:
    """Write a file without the rows at these spots, and return these, in their order."""
    if file.suffix.lower() == ".parquet":
        return copy_parquet(file, out, {line - 1 for line, _ in leave})
    reader = CUTS.get(file.suffix.lower())
    if reader is None:
        raise DataError(f"{file}: cannot be written again; cleaned copies are made of {', '.join(CUTS)} and .parquet")
    with file.open(encoding="utf-8", errors="surrogateescape", newline="") as opened:  # a row may be the other encoding
        text = opened.read()
    mark = "\ufeff" if text.startswith("\ufeff") else ""
    try:
        cut = reader(text.removeprefix(mark))
    except ValueError as error:
        raise DataError(f"{file}: is broken beyond its rows ({error}); mend the file first") from None
    if lost := sorted(leave - cut.rows.keys()):
        raise DataError(f"{file}:{lost[0][0]}: no row begins there, which makes a cleaned copy unsure; mend it by hand")
    kept = [row for spot, row in cut.rows.items() if spot not in leave]
    if cut.between and kept and kept[0] is not next(iter(cut.rows.values())):
        kept[0] = kept[0].lstrip().removeprefix(",").lstrip()
    with whole(out) as beside, beside.open("w", encoding="utf-8", errors="surrogateescape", newline="") as opened:
        opened.writelines([mark, cut.head, *kept, cut.tail])
    return [cut.rows[spot] for spot in sorted(leave)]


def lines(text: str) -> Cut:
    """Rows that are lines; an empty line stays with the row before it."""
    head, rows, last = "", {}, None
    for number, line in enumerate(re.findall(r"[^\n]*\n|[^\n]+", text), 1):
        if line.strip():
            last = number, 0
            rows[last] = line
        elif last:
            rows[last] += line
        else:
            head += line
    return Cut(head, rows)


def array(text: str) -> Cut:
    """Rows that are objects of a JSON array, or lines of objects."""
    at = re.compile(r"\s*").match(text).end()  # pyright: ignore[reportOptionalMemberAccess] - matches nothing too
    if text[at : at + 1] != "[":
        return lines(text)
    decoder, space, at = json.JSONDecoder(), re.compile(r"[\s,]*"), at + 1
    head, rows, line = text[:at], {}, 1 + text.count("\n", 0, at)
    spot = (0, 0)
    while True:
        start = space.match(text, at).end()  # pyright: ignore[reportOptionalMemberAccess] - matches nothing too
        if text[start : start + 1] == "]":
            return Cut(head, rows, text[at:], between=True)
        line += text.count("\n", at, start)
        _, end = decoder.raw_decode(text, start)
        spot = (line, spot[1] + 1 if spot[0] == line else 0)
        rows[spot] = text[at:end]
        line, at = line + text.count("\n", start, end), end


def table(text: str, delimiter: str) -> Cut:
    """Rows that are records of a CSV file; one may go over several lines."""
    taken: list[str] = []

    def hand() -> Iterator[str]:
        for line in re.findall(r"[^\n]*\n|[^\n]+", text):
            taken.append(line)
            yield line

    head, rows, line = "", {}, 1
    for cells in csv.reader(hand(), delimiter=delimiter, strict=True):
        record, height = "".join(taken), len(taken)
        taken.clear()
        if not head or not cells:
            head, rows = (head + record, rows) if not rows else (head, rows | {max(rows): rows[max(rows)] + record})
        else:
            rows[line, 0] = record
        line += height
    return Cut(head, rows)


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
