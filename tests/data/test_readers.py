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

from tunesmith.data.reading import arrow_rows, json_rows, row, stream, text_rows
from tunesmith.data.reading.source import READERS, read
from tunesmith.errors import DataError

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
KEYS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8)
LEAF = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | TEXT
JSON = st.recursive(LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3))
finite = JSON.filter(lambda value: "Infinity" not in json.dumps(value))
ROWS = st.lists(st.dictionaries(KEYS, finite, max_size=4), max_size=6)
NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0,;\t"), max_size=8).map("c{}".format)
TABLES = st.lists(NAMES, min_size=1, max_size=4, unique=True).flatmap(
    lambda names: st.lists(st.fixed_dictionaries(dict.fromkeys(names, TEXT)), min_size=1, max_size=6)
)
SMALL = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def gz(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)  # or the names of tests would hold the time


def zst(data: bytes) -> bytes:
    return pa.compress(data, codec="zstd", asbytes=True)


PACKERS = {"": bytes, ".gz": gz, ".zst": zst}


def got(file):
    return [row.values for row in read([file])]


@SMALL
@given(ROWS, st.sampled_from(["jsonl", "json", "indented", "wrapped"]), st.sampled_from(list(PACKERS)), st.booleans())
def test_json_gives_back_what_was_written(tmp_path, rows, shape, packer, ascii_only):
    rows = rows if shape != "wrapped" else [*rows, {}]
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
    for values in rows:
        at = text.index("\n {", at) + 1
        found.append((f"{file}:{text.count(chr(10), 0, at) + 1}", values))
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


GOOD = [{"a": 'say, "hi"', "b": "好\nday"}, {"a": "", "b": "x" * 40}, {"a": "1", "b": "\u2028"}]


def good(suffix: str) -> bytes:
    """A whole file of a kind."""
    table, out = pa.Table.from_pylist(GOOD), pa.BufferOutputStream()
    match suffix:
        case ".json":
            return json.dumps(GOOD, indent=1).encode()
        case ".jsonl":
            return "\n".join(json.dumps(row) for row in GOOD).encode()
        case ".csv" | ".tsv":
            text = io.StringIO(newline="")
            sheet = csv.DictWriter(text, GOOD[0], delimiter="\t" if suffix == ".tsv" else ",")
            sheet.writeheader()
            sheet.writerows(GOOD)
            return text.getvalue().encode()
        case ".parquet":
            pq.write_table(table, out)
        case ".arrow":
            with pa.ipc.new_file(out, table.schema) as writer:
                writer.write_table(table)
        case ".stream":
            with pa.ipc.new_stream(out, table.schema) as writer:
                writer.write_table(table)
        case ".txt":
            return "\n".join(row["b"] for row in GOOD).encode()
    return out.getvalue().to_pybytes()


MARKS = [b'"', b"[", b"}", b"\n", b"\0"]
KINDS = [*READERS, ".stream"]


def damaged(kind: str):
    """A good file with some bytes changed, put in, or missing."""
    whole = good(kind)
    place = st.integers(0, len(whole))
    spot = st.tuples(
        place, st.integers(0, 8), st.binary(max_size=8) | st.sampled_from([b'"', b"[", b"}", b"\n", b"\0"])
    )

    def apply(spots):
        data = whole
        for at, gone, put in spots:
            data = data[:at] + put + data[at + gone :]
        return data

    return st.lists(spot, min_size=1, max_size=4).map(apply) | place.map(lambda end: whole[:end])


def only_ours(file, content):
    """Read a file whatever it holds: rows, or one sentence that names it."""
    file.write_bytes(content)
    told = []
    try:
        for row in read([file], told.append):
            assert isinstance(row.values, dict)
            assert row.origin.startswith(f"{file}:")
    except DataError as error:
        told.append(str(error))
    assert all(sentence.startswith(str(file)) and "\n" not in sentence for sentence in told)


@settings(SMALL, max_examples=150)
@given(st.data())
def test_of_a_damaged_file_only_our_own_errors_come(tmp_path, data):
    kind = data.draw(st.sampled_from(KINDS))
    packer = data.draw(st.sampled_from(list(PACKERS))) if kind not in (".parquet", ".arrow", ".stream") else ""
    file = tmp_path / f"rows{kind.replace('.stream', '.arrow')}{packer}"
    only_ours(file, PACKERS[packer](data.draw(damaged(kind))))


@settings(SMALL, max_examples=100)
@given(st.sampled_from(KINDS[:-1]), st.sampled_from(list(PACKERS)), st.binary(max_size=60), st.booleans())
def test_of_garbage_only_our_own_errors_come(tmp_path, kind, packer, content, packed):
    only_ours(tmp_path / f"rows{kind}{packer}", PACKERS[packer](content) if packed else content)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.jsonl", b'{"a": 1}\n{"a": 1, "b": {"c": 1, "c": 2}}', ':2: has the key "c" twice'),
        ("a.jsonl", b'{"text": "\\"text\\": 1"}\n{"text" : "a", "text"\t: "b"}', ':2: has the key "text" twice'),
        ("a.json", b'[\n{"a": 1},\n{"a": 1,\n"a": 2}]', ':3: has the key "a" twice'),
        ("a.json", b'{"data": [{"a": 1}],\n"data": 1}', ':2: has the key "data" twice'),
        ("a.json", b'{"a": [{"a": 1}], "b": [{"a": 2}]}', ":1: holds two lists of rows, a and b"),
        ("a.json", b'[{"a": 1}]\n[{"a": 2}]', ":2: goes on after its end"),
        ("a.json", b'[{"a": 1}\n{"a": 2}]', ":2: is not JSON: expected , or ], found { at column 1"),
        ("a.json", b'"text"', ":1: must begin with"),
        ("a.jsonl", b'{"a": NaN}', ":1: is not JSON"),
        ("a.jsonl", b'{"a": -Infinity}', ":1: is not JSON"),
        ("a.jsonl", b'{"a": 1e999}', ":1: is not JSON"),
        ("a.jsonl", b'{"a": 18446744073709551616}', ":1: holds a whole number of more than 64 bits"),
        ("a.json", b'[{"a": ' + b"9" * 30 + b"}]", ":1: holds a whole number of more than 64 bits"),
        ("a.jsonl", b'{"a": "\\ud800"}', ":1: is not JSON"),
        ("a.jsonl", b'{"a": ' + b"[" * 5000 + b"]" * 5000 + b"}", ":1: is not JSON: depth limit"),
        ("a.jsonl", b'{"a": ' + b"[" * 200 + b"]" * 200 + b"}", ":1: is nested more than 100 deep"),
        ("a.json", b'[{"a": ' + b"[" * 5000 + b"]" * 5000 + b"}]", ":1: is nested more than 100 deep"),
        ("a.jsonl", b'{"a": "\0"}', ":1: holds a NUL byte"),
        ("a.txt", b"fine\nnot\0fine", ":2: holds a NUL byte"),
        ("a.csv", b"a\nnot\0fine", ":2: holds a NUL byte"),
        ("a.jsonl", b'{"a": 1}\n{"a": "' + "微调".encode("gb18030") + b'"}', ":2: .* could be GB18030, .*iconv"),
        ("a.json", b'[{"a": 1},\n{"a": "' + "微调".encode("gb18030") + b'"}]', ":2: .* could be GB18030, .*iconv"),
        ("a.csv", "列,表\n微,调".encode("gb18030"), ":1: .* could be GB18030, .*iconv"),
        ("a.csv", "a,b\n1,2".encode("utf-16"), ":1: is not UTF-8 text but UTF-16"),
        ("a.csv", b"a,b,a\n1,2,3", ":1: names the column 'a' twice"),
        ("a.csv", b"a;b\n1;2", ":1: the columns are parted by ';'"),
        ("a.tsv", b"a,b\n1,2", ":1: the columns are parted by ','"),
        ("a.csv", b'a,b\n1,2\n3,"4\n5,6\n', ":3: a quote is opened in this row that nothing closes"),
        ("a.csv", b'a,b\n1,2\n"3"3,4\n5,6\n', ":3: is not CSV"),
        ("a.csv", b'a,b\n1,"2\n\n3"\n3\n', ":5: has 1 cells where the head has 2"),
        ("a.jsonl.gz", gz(b'{"a": 1}\n')[:-4], ": is damaged and cannot be unpacked"),
        ("a.jsonl.zst", zst(b'{"a": 1}\n')[:-4], ": is damaged and cannot be unpacked"),
        ("a.jsonl.gz", b'{"a": 1}\n', ": is damaged and cannot be unpacked"),
        ("a.parquet.gz", b"", ": cannot be read; expected one of"),
        ("a.arrow", b"", ": is not a whole Arrow file"),
    ],
)
def test_what_could_be_read_wrongly_is_refused(tmp_path, name, content, sentence):
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(DataError, match=sentence):
        list(read([file]))


def test_two_columns_of_one_name_are_refused(tmp_path):
    one = pa.array(["a"])
    table = pa.Table.from_arrays([one, pa.StructArray.from_arrays([one, one], ["x", "x"])], ["a", "b"])
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as out, pa.ipc.new_file(out, table.schema) as writer:
        writer.write_table(table)
    pq.write_table(pa.Table.from_arrays([one, one], ["a", "a"]), tmp_path / "a.parquet")
    for file, name in ((tmp_path / "a.arrow", "x"), (tmp_path / "a.parquet", "a")):
        with pytest.raises(DataError, match=f"names the column '{name}' twice"):
            list(read([file]))


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize(
    ("name", "content", "rows", "told"),
    [
        ("a.jsonl", b'{"a": 1}\n{"a"\n[]\n\xff\n{"a": 2}', [{"a": 1}, {"a": 2}], [2, 3, 4]),
        ("a.json", b'{"a": 1}\n{"a": }\n{"a": 2}', [{"a": 1}, {"a": 2}], [2]),
        ("a.json", b'[{"a": 1},\n5,\n{"a": 1, "a": 1},\n{"a": 2}]', [{"a": 1}, {"a": 2}], [2, 3]),
        ("a.csv", b'a,b\n1,2\n3\n"4"4,5\n6,\xff\n7,8', [{"a": "1", "b": "2"}, {"a": "7", "b": "8"}], [3, 4, 5]),
        ("a.txt", b"1\n\xff\n2", [{"text": "1"}, {"text": "2"}], [2]),
    ],
)
def test_broken_rows_are_told_and_the_others_read(tmp_path, packer, name, content, rows, told):
    file = tmp_path / f"{name}{packer}"
    file.write_bytes(PACKERS[packer](content))
    sentences = []
    assert [row.values for row in read([file], sentences.append)] == rows
    assert [int(sentence.removeprefix(f"{file}:").partition(":")[0]) for sentence in sentences] == told


def written(rows, file):
    """A file of rows that have one column, text."""
    table = pa.Table.from_pylist(rows)
    match file.suffix:
        case ".json":
            file.write_text(json.dumps(rows, indent=1))
        case ".jsonl":
            file.write_text("\n".join(map(json.dumps, rows)))
        case ".csv" | ".txt":
            file.write_text("\n".join([*(["text"] if file.suffix == ".csv" else []), *(row["text"] for row in rows)]))
        case ".parquet":
            pq.write_table(table, file)
        case ".arrow":
            with pa.OSFile(str(file), "wb") as out, pa.ipc.new_stream(out, table.schema) as writer:
                writer.write_table(table)
    return file


@pytest.mark.parametrize("kind", [".jsonl", ".json", ".csv", ".txt", ".parquet", ".arrow"])
def test_a_row_that_is_too_long_is_refused_and_the_next_is_read(tmp_path, monkeypatch, kind):
    for module in (row, stream, json_rows, text_rows, arrow_rows):
        monkeypatch.setattr(module, "LONGEST", 1000)
    monkeypatch.setattr(arrow_rows, "AT_ONCE", 500)
    monkeypatch.setattr(stream, "BLOCK", 100)
    rows = [{"text": "a"}, {"text": "b" * 5000}, {"text": "c"}]
    file = written(rows, tmp_path / f"a{kind}")
    with pytest.raises(DataError, match=r"is longer than 0 MiB, the most that one row may have"):
        list(read([file]))
    if kind in (".jsonl", ".txt", ".parquet", ".arrow"):  # where what comes after it can be told without reading it
        told = []
        assert [row.values for row in read([file], told.append)] == [rows[0], rows[2]]
        assert len(told) == 1


@pytest.mark.parametrize("packer", [".gz", ".zst"])
def test_a_bomb_is_refused_before_it_has_unpacked(tmp_path, monkeypatch, packer):
    monkeypatch.setattr(stream, "BOMB", (1 << 18, 100))
    monkeypatch.setattr(stream, "BLOCK", 1 << 14)
    file = tmp_path / f"a.jsonl{packer}"
    file.write_bytes(PACKERS[packer](b'{"a": 1}\n' * 300_000))
    seen = []
    with pytest.raises(DataError, match="unpacks to more than 100 times its size"):
        seen.extend(read([file]))
    assert 0 < len(seen) < 200_000


def test_memory_does_not_grow_with_the_file(tmp_path, monkeypatch):
    import tracemalloc

    monkeypatch.setattr(stream, "BLOCK", 1 << 14)

    def peak(count):
        found, rows = {}, [{"text": f"{n} " + "x" * 200} for n in range(count)]
        for kind in (".jsonl", ".json", ".csv", ".txt"):
            file = written(rows, tmp_path / f"a{kind}")
            packed = tmp_path / f"a{kind}.gz"
            packed.write_bytes(gz(file.read_bytes()))
            tracemalloc.start()
            assert sum(1 for _ in read([file, packed])) == 2 * count
            found[kind] = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        return found

    small, large = peak(1_000), peak(4_000)
    assert all(large[kind] < small[kind] + 100_000 for kind in small), (small, large)
