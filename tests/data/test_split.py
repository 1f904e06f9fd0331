"""Rows parted by their content: all of them, none twice, and each where it was when others come."""

import json

import pytest

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


def test_copies_of_a_row_stay_together(tmp_path):
    part(rows(tmp_path / "a.jsonl", [*range(200)] * 2), tmp_path / "out", {"test": 0.5})
    sides = parted(tmp_path / "out")
    assert not set(sides["train"]) & set(sides["test"])


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
