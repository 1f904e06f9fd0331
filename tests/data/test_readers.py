"""Readers give back what was written, whatever it was; of a broken file they say one sentence, and nothing else."""

import csv
import gzip
import io
import json

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet as pq

from tunesmith.data.readers import stream
from tunesmith.data.readers.json_rows import value
from tunesmith.data.source import READERS, read
from tunesmith.errors import DataError

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
KEYS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8)
LEAF = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | TEXT
JSON = st.recursive(LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3))
finite = JSON.filter(lambda value: "Infinity" not in json.dumps(value))
ROWS = st.lists(st.dictionaries(KEYS, finite, max_size=4), max_size=6)
TABLES = st.lists(KEYS.map(lambda key: "c" + key), min_size=1, max_size=4, unique=True).flatmap(
    lambda names: st.lists(st.fixed_dictionaries(dict.fromkeys(names, TEXT)), min_size=1, max_size=6)
)
SMALL = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def gz(data: bytes) -> bytes:
    return gzip.compress(data)


def zst(data: bytes) -> bytes:
    return pa.compress(data, codec="zstd", asbytes=True)


PACKERS = {"": bytes, ".gz": gz, ".zst": zst}


def got(file):
    return [row.values for row in read([file])]


@SMALL
@given(ROWS, st.sampled_from(["jsonl", "json", "indented", "wrapped"]), st.sampled_from(list(PACKERS)), st.booleans())
def test_json_gives_back_what_was_written(tmp_path, rows, shape, packer, ascii_only):
    dump = json.JSONEncoder(ensure_ascii=ascii_only, indent=2 if shape == "indented" else None).encode
    match shape:
        case "jsonl":
            text = "\r\n".join(map(dump, rows))
        case "wrapped":
            text = dump({"version": 1.5, "data": rows, "note": {"a": [1]}})
        case _:
            text = dump(rows)
    file = tmp_path / f"rows.{'jsonl' if shape == 'jsonl' else 'json'}{packer}"
    file.write_bytes(PACKERS[packer]("\ufeff".encode() + text.encode()))
    if shape != "wrapped" or rows:
        assert got(file) == rows


@SMALL
@given(ROWS.filter(len), st.integers(1, 40))
def test_a_list_that_is_read_in_pieces_is_the_same(tmp_path, rows, block):
    file = tmp_path / "rows.json"
    file.write_text(json.dumps(rows, indent=1, ensure_ascii=False), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "BLOCK", block)
        assert list(read([file])) == lines_found(file.read_text(encoding="utf-8"), rows, file)


def lines_found(text, rows, file):
    """Each row with its line, found by looking for it in the whole text."""
    at, found = 0, []
    for row in rows:
        at = text.index("\n {", at) + 1
        found.append((f"{file}:{text.count(chr(10), 0, at) + 1}", row))
    return found


@SMALL
@given(TABLES, st.sampled_from([("csv", ","), ("tsv", "\t")]), st.sampled_from(list(PACKERS)), st.booleans())
def test_tables_give_back_what_was_written(tmp_path, rows, kind, packer, quoted):
    suffix, delimiter = kind
    text = io.StringIO(newline="")
    sheet = csv.DictWriter(text, rows[0], delimiter=delimiter, quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL)
    sheet.writeheader()
    sheet.writerows(rows)
    file = tmp_path / f"rows.{suffix}{packer}"
    file.write_bytes(PACKERS[packer](text.getvalue().encode()))
    assert got(file) == rows


@SMALL
@given(TABLES, st.sampled_from(["parquet", "file", "stream"]))
def test_columns_give_back_what_was_written(tmp_path, rows, kind):
    table = pa.Table.from_pylist(rows)
    file = tmp_path / f"rows.{'parquet' if kind == 'parquet' else 'arrow'}"
    if kind == "parquet":
        pq.write_table(table, file, row_group_size=2)
    else:
        make = pa.ipc.new_file if kind == "file" else pa.ipc.new_stream
        with pa.OSFile(str(file), "wb") as out, make(out, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
    assert list(read([file])) == [(f"{file}:{n}", row) for n, row in enumerate(rows, 1)]
