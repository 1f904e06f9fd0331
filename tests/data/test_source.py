"""Every file gives its rows, each with its line; every fault names file and line."""

import csv
import json

import pytest

from tunesmith.data.reading.source import read, splits
from tunesmith.errors import DataError

ROWS = [{"instruction": 'say, "hi"', "output": "好\nday"}, {"instruction": "b", "output": ""}]


def write(path, kind):
    match kind:
        case "jsonl":
            path.write_text("\n".join(json.dumps(row) for row in ROWS), encoding="utf-8")
        case "json":
            path.write_text(json.dumps(ROWS, indent=2), encoding="utf-8")
        case "csv" | "tsv":
            with path.open("w", newline="", encoding="utf-8") as file:
                sheet = csv.DictWriter(file, ROWS[0], delimiter="\t" if kind == "tsv" else ",")
                sheet.writeheader()
                sheet.writerows(ROWS)
        case "parquet":
            import pyarrow
            from pyarrow.parquet import write_table

            write_table(pyarrow.Table.from_pylist(ROWS), path)


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "tsv", "parquet"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path, kind):
    file = tmp_path / f"rows.{kind}"
    write(file, kind)
    assert [row.values for row in read([file])] == ROWS


def test_a_row_knows_its_line(tmp_path):
    file = tmp_path / "rows.json"
    write(file, "json")
    assert [row.origin for row in read([file])] == [f"{file}:2", f"{file}:6"]


@pytest.mark.parametrize(
    ("name", "content", "where"),
    [
        ("a.jsonl", '{"a": 1}\n{"a": ', ":2: is not JSON"),
        ("a.json", '[{"a": 1},\n {"a": }]', ":2: is not JSON"),
        ("a.json", '[{"a": 1}', ":1: is not JSON"),
        ("a.jsonl", "[1, 2]\n", ":1: must be an object"),
        ("a.csv", "a,b\n1,2\n3\n", ":3: has 1 cells where the head has 2"),
        ("a.txt", b"fine\n\xff\xfe\n", ":2: is not UTF-8"),
        ("a.parquet", b"PAR1 but not really", ": is not a whole Parquet file"),
        ("a.xyz", "?", ": cannot be read; expected one of"),
    ],
)
def test_a_broken_file_is_named_with_its_line(tmp_path, name, content, where):
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=where):
        list(read([file]))


def test_a_folder_is_split_by_its_files_names(tmp_path):
    for name in ("train-00000.jsonl", "validation.jsonl", "test.jsonl"):
        write(tmp_path / name, "jsonl")
    assert {split: [file.name for file in files] for split, files in splits(tmp_path).items()} == {
        "train": ["train-00000.jsonl"],
        "validation": ["validation.jsonl"],
        "test": ["test.jsonl"],
    }
