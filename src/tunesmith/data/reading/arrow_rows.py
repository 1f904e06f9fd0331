"""Rows of Parquet and Arrow files; their numbers count from 1."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import DataError
from .row import LONGEST, Bad, Row, too_long

if TYPE_CHECKING:
    from pyarrow import DataType, RecordBatch, Schema

AT_ONCE = 4 << 20
"""Bytes of rows that are made into Python's values at once."""
BATCH = 1024
"""Most rows that are decoded at once."""


def parquet(file: Path, bad: Bad) -> Iterator[Row]:
    """The rows of a Parquet file."""
    from pyarrow.parquet import ParquetFile

    def batches() -> Iterator[RecordBatch]:
        with ParquetFile(file, pre_buffer=False) as content:
            groups = [content.metadata.row_group(n) for n in range(content.num_row_groups)]
            widest = max((group.total_byte_size // max(1, group.num_rows) for group in groups), default=0)
            yield from content.iter_batches(max(1, min(BATCH, AT_ONCE // max(1, widest))))

    yield from rows(file, "Parquet", batches(), bad)


def arrow(file: Path, bad: Bad) -> Iterator[Row]:
    """The rows of an Arrow file, of the random-access kind or of the streaming one, which `datasets` writes."""
    from pyarrow import OSFile, ipc, memory_map

    def batches() -> Iterator[RecordBatch]:
        with OSFile(str(file)) as content:
            streamed = content.read(6) != b"ARROW1"
            content.seek(0)
            if streamed:
                yield from ipc.open_stream(content)
                return
        with memory_map(str(file)) as content:  # it may be one batch, of which only what is looked at should be held
            opened = ipc.open_file(content)
            yield from (opened.get_batch(number) for number in range(opened.num_record_batches))

    yield from rows(file, "Arrow", batches(), bad)


def rows(file: Path, kind: str, batches: Iterator[RecordBatch], bad: Bad) -> Iterator[Row]:
    from pyarrow import ArrowException

    number, names = 0, None
    while True:
        try:
            batch = next(batches, None)
            if batch is None:
                return
            names = names or check_names(file, batch.schema)
            batch.validate(full=True)  # a damaged file could otherwise point anywhere in memory
        except (ArrowException, OSError, ValueError) as error:
            why = str(error).partition("\n")[0]
            raise DataError(f"{file}: is not a whole {kind} file after row {number} ({why}); get it again") from None
        for part in parts(batch):
            if part.nbytes > LONGEST:
                number += 1
                bad(too_long(file, number))
                continue
            for values in listed(file, number, part):
                number += 1
                yield Row(f"{file}:{number}", values)


def parts(batch: RecordBatch) -> Iterator[RecordBatch]:
    """A batch in parts that are small, or a single row."""
    if batch.nbytes <= AT_ONCE or batch.num_rows == 1:
        yield batch
        return
    half = batch.num_rows // 2
    yield from parts(batch.slice(0, half))
    yield from parts(batch.slice(half))


def listed(file: Path, above: int, part: RecordBatch) -> list[dict]:
    from pyarrow import ArrowException

    try:
        return part.to_pylist()
    except (ArrowException, ValueError, OverflowError) as error:
        raise DataError(
            f"{file}:{above + 1}: here or in the {part.num_rows - 1} rows below stands a value that cannot be read:"
            f" {error}"
        ) from None


def check_names(file: Path, schema: Schema) -> list[str]:
    """The columns, of which no two may have one name, nor two fields of one value."""
    named: list[tuple[list[str], list[DataType]]] = [(schema.names, schema.types)]
    while named:
        names, types = named.pop()
        if twice := [name for name, times in Counter(names).items() if times > 1]:
            raise DataError(f"{file}: names the column '{twice[0]}' twice; rename one of them")
        inner = [[kind.field(n) for n in range(kind.num_fields)] for kind in types if kind.num_fields]
        named += [([field.name for field in fields], [field.type for field in fields]) for fields in inner]
    return schema.names
