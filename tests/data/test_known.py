"""Rows that are trained on and held out as well are found before training, whichever sources they stand in."""

import csv
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from data.test_material import made
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.data.example import Example
from tunesmith.data.item import Item
from tunesmith.data.keeping import known
from tunesmith.data.keeping.known import Noted, Rows, leaks
from tunesmith.data.keeping.store import Stored, Writer
from tunesmith.data.reading.source import Row
from tunesmith.errors import DataError
from tunesmith.objectives.pretrain import Pretrain
from tunesmith.objectives.sft import SFT
from tunesmith.run import Data, Source


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def asked(n):
    return f"What is {n} and {n}?", f"It is {n + n}."


def chats(file, numbers):
    """Rows as lists of turns."""
    turns = lambda n: [{"role": r, "content": c} for r, c in zip(("user", "assistant"), asked(n), strict=True)]  # noqa: E731
    file.write_text("".join(json.dumps({"messages": turns(n)}) + "\n" for n in numbers))
    return str(file)


def sheet(file, numbers):
    """The same rows as a table."""
    with file.open("w", newline="") as out:
        csv.writer(out).writerows([("question", "answer"), *map(asked, numbers)])
    return str(file)


def test_rows_of_eval_path_that_are_trained_on_stop_a_training(tmp_path, tokenizer):
    data = Data(path=chats(tmp_path / "a.jsonl", range(60)), eval_path=sheet(tmp_path / "b.csv", [99, 7, 8, 98, 40, 9]))
    for _ in range(2):  # made anew, and out of the cache
        with pytest.raises(DataError, match="leakage: 4 rows that are trained on are held out too") as stopped:
            made(tokenizer, data, objective=SFT())
        assert all(f"a.jsonl:{line}" in str(stopped.value) for line in (8, 9, 10))
    for _ in range(2):
        found, said = made(tokenizer, replace(data, on_lint="warn"), objective=SFT())
        assert len(found.sequences) == 60 and len(found.test) == 6
        [line] = [line for line in said if "leakage" in line]
        assert line.startswith(f"data: error leakage: 4 of 66 rows; first {tmp_path}/a.jsonl:8: is held out in")
        for row, held_out in ((8, 3), (9, 4), (10, 7)):
            assert f"a.jsonl:{row}: is held out in {tmp_path}/b.csv:{held_out}" in line


def test_rows_that_another_source_holds_out_are_found(tmp_path, tokenizer):
    (tmp_path / "folder").mkdir()
    chats(tmp_path / "folder" / "train.jsonl", range(100, 140))
    chats(tmp_path / "folder" / "test.jsonl", [*range(200, 230), 12])
    first = sheet(tmp_path / "a.csv", range(30))
    data = Data(path=first, also=(Source(path=str(tmp_path / "folder")),))
    with pytest.raises(DataError, match=r"leakage: 1 rows .* first \S*a.csv:14;"):
        made(tokenizer, data, objective=SFT())
    told = []
    for most in (2, 29):  # what is not trained on cannot leak
        found, said = made(tokenizer, replace(data, max_samples=most, on_lint="warn"), objective=SFT())
        learnt = any("What is 12 and" in tokenizer.decode(tokens.ids) for tokens in found.sequences)
        told.append(any("leakage" in line for line in said))
        assert told[-1] == learnt
    assert told == [False, True]


def test_a_leak_of_few_held_out_rows_is_a_warning(tmp_path, tokenizer):
    held_out = chats(tmp_path / "b.jsonl", [3, *range(1000, 1100)])
    data = Data(path=chats(tmp_path / "a.jsonl", range(40)), eval_path=held_out)
    _, said = made(tokenizer, data, objective=SFT())
    assert any("warning leakage: 1 of 141 rows" in line for line in said)


def test_a_row_that_is_left_out_for_its_length_does_not_leak(tmp_path, tokenizer):
    def texts(name, words):
        (tmp_path / name).write_text("".join(json.dumps({"text": word}) + "\n" for word in words))
        return str(tmp_path / name)

    long = "one two three " * 40
    data = Data(path=texts("a.jsonl", ["one", long]), eval_path=texts("b.jsonl", ["two", long]), max_length=40)
    _, said = made(tokenizer, replace(data, truncation="drop"), objective=Pretrain())
    assert not any("leakage" in line for line in said)
    with pytest.raises(DataError, match="leakage: 1 rows"):
        made(tokenizer, data, objective=Pretrain())


ROW = st.tuples(st.integers(0, 2), st.sampled_from(["train", "test", "validation"]), st.integers(0, 9))


@settings(max_examples=100, deadline=None)
@given(st.lists(ROW, max_size=40), st.integers(1, 5))
def test_leaks_are_those_that_sets_tell_however_small_the_pieces(rows, piece):
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patched:
        patched.setattr(known, "FLUSH", piece)
        parts = [stored(Path(folder) / str(source), source, rows) for source in range(3)]
        found, count = leaks(parts)
    held_out = Counter(text for _, split, text in rows if split != "train")
    trained = [text for _, split, text in rows if split == "train"]
    wanted = [text for text in trained if text in held_out]
    assert count == len(rows)
    assert (found.count if found else 0) == len(wanted)
    if found:
        known_ = sum(held_out[text] for text in set(wanted))
        assert (found.severity == "error") == (known_ > 0.01 * held_out.total())
        for origin, said in found.examples:
            there = said.en.removeprefix("is held out in ")
            source, number = (int(part) for part in there.split(":"))
            row = rows[number]
            assert row[0] == source and row[1] != "train" and row[2] == rows[int(origin.split(":")[1])][2]


def stored(folder, source, rows):
    folder.mkdir()
    with Writer(folder) as writer, Noted(folder) as noted:
        for number, (where, split, text) in enumerate(rows):
            if where == source:
                some = Rows()
                some.add(Item(Row(f"{source}:{number}", {}), split, Example(text=f"text {text}")))
                noted.add(some)
        writer.close({"read": noted.close()})
    return Stored(folder)
