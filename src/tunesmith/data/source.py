"""From files to rows, each with the place where it stands."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import DataError
from .guard import unguarded


class Row(NamedTuple):
    """What one row holds, and where it was read, as file:line."""

    origin: str
    values: dict[str, Any]


SPLITS = {"train": ("train",), "validation": ("validation", "valid", "val", "dev"), "test": ("test", "eval")}


def splits(path: Path) -> dict[str, list[Path]]:
    """The files of each split: a folder's by their names, a single file is all `train`."""
    if path.is_file():
        return {"train": [path]}
    files = sorted(file for file in path.rglob("*") if file.suffix in READERS and not hidden(file, path))
    named = {
        split: [file for file in files if file.name.replace("-", ".").replace("_", ".").split(".")[0] in words]
        for split, words in SPLITS.items()
    }
    found = {split: files for split, files in named.items() if files}
    if "train" not in found and files:
        rest = [file for file in files if not any(file in split for split in found.values())]
        found["train"] = rest
    if not found.get("train"):
        raise DataError(f"{path}: no file to train on; expected one of {', '.join(READERS)}")
    return found


def hidden(file: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(root).parts)


def read(files: list[Path]) -> Iterator[Row]:
    """Every row of the files, in order. Broken lines are a DataError that names the file and the line."""
    for file in files:
        reader = READERS.get(file.suffix.lower())
        if reader is None:
            raise DataError(f"{file}: cannot be read; expected one of {', '.join(READERS)}")
        yield from reader(file)


def text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = file.read_bytes()[: error.start].count(b"\n") + 1
        raise DataError(f"{file}:{line}: is not UTF-8 text; convert the file to UTF-8") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from None


def jsonl(file: Path) -> Iterator[Row]:
    for number, line in enumerate(text_of(file).split("\n"), 1):
        if line.strip():
            yield row(f"{file}:{number}", decoded(line, file, number - 1))


def array(file: Path) -> Iterator[Row]:
    """The objects of a JSON array; read one by one, so that each has its line."""
    text = text_of(file)
    decoder, at = json.JSONDecoder(), skip(text, 0, "")
    if text[at : at + 1] != "[":
        yield from jsonl(file)  # lines of objects in a file that is named .json
        return
    line, seen, at = 1, 0, skip(text, at + 1, ",")
    while text[at : at + 1] != "]":
        line, seen = line + text.count("\n", seen, at), at
        try:
            value, end = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise broken(file, error.lineno, error) from None
        yield row(f"{file}:{line}", value)
        at = skip(text, end, ",")


def skip(text: str, at: int, also: str) -> int:
    while at < len(text) and (text[at].isspace() or text[at] in also):
        at += 1
    return at


def decoded(text: str, file: Path, above: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise broken(file, above + error.lineno, error) from None


def broken(file: Path, line: int, error: json.JSONDecodeError) -> DataError:
    return DataError(f"{file}:{line}: is not JSON: {error.msg} at column {error.colno}")


def row(origin: str, value: Any) -> Row:
    if not isinstance(value, dict):
        raise DataError(f"{origin}: must be an object of columns (got {value!r:.60})")
    return Row(origin, value)


def table(file: Path) -> Iterator[Row]:
    lines = csv.reader(text_of(file).splitlines(keepends=True), delimiter="\t" if file.suffix == ".tsv" else ",")
    head = next(lines, None)
    if not head:
        return
    for cells in lines:
        if len(cells) != len(head):
            raise DataError(f"{file}:{lines.line_num}: has {len(cells)} cells where the head has {len(head)}")
        try:
            yield Row(f"{file}:{lines.line_num}", unguarded(dict(zip(head, cells, strict=True))))
        except ValueError as error:
            raise DataError(f"{file}:{lines.line_num}: {error}") from None


def parquet(file: Path) -> Iterator[Row]:
    from pyarrow import ArrowInvalid
    from pyarrow.parquet import ParquetFile

    try:
        number = 0
        for batch in ParquetFile(file).iter_batches():
            for values in batch.to_pylist():
                number += 1
                yield Row(f"{file}:{number}", values)
    except (ArrowInvalid, OSError) as error:
        raise DataError(f"{file}: is not a whole Parquet file: {error}") from None


def lines(file: Path) -> Iterator[Row]:
    for number, line in enumerate(text_of(file).split("\n"), 1):
        if line.strip():
            yield Row(f"{file}:{number}", {"text": line})


READERS = {
    ".json": array,
    ".jsonl": jsonl,
    ".csv": table,
    ".tsv": table,
    ".parquet": parquet,
    ".txt": lines,
}
