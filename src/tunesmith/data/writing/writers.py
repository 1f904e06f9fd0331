"""From rows to a file: JSON, tables, Parquet."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..reading.guard import GUARDED, guarded

Row = dict[str, Any]
Rows = Callable[[], Iterator[Row]]
"""Gives the rows from the first on, each time it is called."""
STEERS = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")
AT_ONCE = 1000


def line(row: Row) -> str:
    """A row as a line of JSON, in which nothing steers a terminal and half a letter is written as an escape."""
    return harmless(json.dumps(row, ensure_ascii=False, allow_nan=False))


def harmless(text: str) -> str:
    """The same JSON without what steers a terminal or has no encoding."""
    return STEERS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def jsonl(file: Path, rows: Rows) -> None:
    with file.open("w", encoding="utf-8", newline="\n") as out:
        for row in rows():
            out.write(line(row) + "\n")


def array(file: Path, rows: Rows) -> None:
    with file.open("w", encoding="utf-8", newline="\n") as out:
        before = "[\n"
        for row in rows():
            out.write(before + line(row))
            before = ",\n"
        out.write("[]\n" if before == "[\n" else "\n]\n")


def table(file: Path, rows: Rows) -> None:
    """A table of texts; lists are written as JSON, and a cell that does harm is guarded."""
    columns: dict[str, None] = {}
    for row in rows():
        columns |= dict.fromkeys(guarded(cells(row)))
    if GUARDED in columns:
        columns = {**{column: None for column in columns if column != GUARDED}, GUARDED: None}
    with file.open("w", encoding="utf-8", newline="") as out:
        sheet = csv.DictWriter(
            out, list(columns), restval="", delimiter="\t" if file.suffix == ".tsv" else ",", lineterminator="\n"
        )
        sheet.writeheader()
        sheet.writerows(guarded(cells(row)) for row in rows())


def cells(row: Row) -> dict[str, str]:
    return {column: cell(value) for column, value in row.items()}


def cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, allow_nan=False)


def parquet(file: Path, rows: Rows) -> None:
    """Columns that all rows share; schemas of tools, no two alike, are written as JSON."""
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    try:
        parts = [pyarrow.RecordBatch.from_pylist(part).schema for part in grouped(rows)]
        schema = pyarrow.unify_schemas(parts, promote_options="permissive") if parts else pyarrow.schema([])
        with ParquetWriter(file, schema) as out:
            for part in grouped(rows):
                out.write_table(pyarrow.Table.from_pylist(part, schema))
    except (pyarrow.ArrowException, OverflowError) as error:
        raise ValueError(f"Parquet needs columns of one type each ({error}); write .jsonl") from None


def grouped(rows: Rows) -> Iterator[list[Row]]:
    """The rows, many at a time, each with all columns of any of them."""
    for part in chunks(rows()):
        columns = dict.fromkeys(column for row in part for column in row)
        yield [{column: flat(row.get(column)) for column in columns} for row in part]


def chunks(rows: Iterator[Row]) -> Iterator[list[Row]]:
    part: list[Row] = []
    for row in rows:
        part.append(row)
        if len(part) == AT_ONCE:
            yield part
            part = []
    if part:
        yield part


def flat(value: Any) -> Any:
    """A list of schemas as JSON; anything else as it is."""
    if isinstance(value, list) and value and all(isinstance(item, dict) and "function" in item for item in value):
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    return value


WRITERS: dict[str, Callable[[Path, Rows], None]] = {
    ".json": array,
    ".jsonl": jsonl,
    ".csv": table,
    ".tsv": table,
    ".parquet": parquet,
}
