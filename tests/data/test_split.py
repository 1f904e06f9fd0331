"""Rows parted by their content: all of them, none twice, and each where it was when others come."""

import hashlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.data.dataset import digest
from tunesmith.data.reading.row import Row
from tunesmith.data.reading.source import read
from tunesmith.data.writing.split import part
from tunesmith.errors import DataError, RecipeError


def rows(file, numbers):
    file.write_text("".join(json.dumps({"text": f"text {n}"}) + "\n" for n in numbers))
    return file


def parted(folder):
    return {file.stem: [row.values["text"] for row in read([file])] for file in folder.iterdir()}


def test_every_row_is_on_one_side_and_stays_there(tmp_path):
    shares = {"test": 0.2, "validation": 0.3}
    counts = part(rows(tmp_path / "a.jsonl", range(1000)), tmp_path / "few", shares)
    few = parted(tmp_path / "few")
    assert sorted(text for side in few.values() for text in side) == sorted(f"text {n}" for n in range(1000))
    assert counts == {name: len(side) for name, side in few.items()}
    assert 150 < counts["test"] < 250 and 250 < counts["validation"] < 350
    part(rows(tmp_path / "b.jsonl", range(1500, -1, -1)), tmp_path / "more", shares)
    more = parted(tmp_path / "more")
    assert all(set(few[name]) <= set(more[name]) for name in few)


LEAF = st.none() | st.booleans() | st.integers() | st.floats() | st.dates() | st.text(max_size=9)
LEAF |= st.sampled_from(["\ud800", "\x7f\x00\x1f", '\b\f\n\r\t"\\/', "\u2028é😀"])
VALUES = st.dictionaries(st.text(max_size=4) | st.just("\udfff"), LEAF | st.lists(LEAF, max_size=3), max_size=4)


@given(VALUES)
@settings(max_examples=50, deadline=None)
def test_a_row_is_parted_by_the_json_of_it(values):
    """With another hash, a newer version would hold out rows that an older one has trained on."""
    said = json.dumps(values, sort_keys=True, ensure_ascii=False, default=str).encode(errors="surrogatepass")
    assert digest(Row("a:1", values)) == hashlib.sha256(said).digest()


def test_copies_of_a_row_stay_together(tmp_path):
    part(rows(tmp_path / "a.jsonl", [*range(200)] * 2), tmp_path / "out", {"test": 0.5})
    sides = parted(tmp_path / "out")
    assert not set(sides["train"]) & set(sides["test"])


def test_one_split_is_parted_alone(tmp_path):
    """Rows of a source's own splits are not mixed."""
    (tmp_path / "data").mkdir()
    for name, first in (("train", 0), ("validation", 100), ("test", 200)):
        rows(tmp_path / "data" / f"{name}.jsonl", range(first, first + 40))
    part(tmp_path / "data", tmp_path / "out", {"test": 0.5}, "test")
    sides = parted(tmp_path / "out")
    assert sides["train"] and sides["test"]
    assert sorted(sides["train"] + sides["test"]) == [f"text {n}" for n in range(200, 240)]
    with pytest.raises(DataError, match="it has train, validation, test"):
        part(tmp_path / "data", tmp_path / "other", {"test": 0.5}, "tset")


def test_nothing_is_half_written_or_overwritten(tmp_path):
    file = rows(tmp_path / "a.jsonl", range(10))
    with file.open("a") as more:
        more.write("{broken\n")
    with pytest.raises(DataError, match="a.jsonl:11: is not JSON"):
        part(file, tmp_path / "out", {"test": 0.5})
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="is there already"):
        part(file, tmp_path / "out", {"test": 0.5})
    with pytest.raises(RecipeError, match="nothing would be left to train on"):
        part(file, tmp_path / "other", {"test": 0.5, "validation": 0.5})
