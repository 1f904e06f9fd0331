"""`data stats`: lengths and costs as a second way of getting them tells."""

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.cli import main
from tunesmith.data.example import Message, dialogue
from tunesmith.data.item import Item
from tunesmith.data.reading.row import Row
from tunesmith.data.rendering.render import NoTarget, Renderer, Tokens
from tunesmith.data.stats import Lengths, measured
from tunesmith.run import Data

ROWS = [{"instruction": f"say one {'two ' * (n % 7)}", "output": "three " * (n * n % 23 + 1)} for n in range(60)]


@pytest.fixture
def ask(capsys):
    def run(*words):
        with pytest.raises(SystemExit) as left:
            main([*map(str, words)])
        said = capsys.readouterr()
        assert not left.value.code, said.err
        return said.out

    return run


@pytest.fixture
def data(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return file


def examples():
    return [dialogue((Message("user", row["instruction"]), Message("assistant", row["output"]))) for row in ROWS]


def test_lengths_are_those_of_the_template(ask, data, model_folder, tokenizer):
    found = json.loads(ask("data", "stats", data, "--model", model_folder, "data.eval_size=0", "--json"))
    turns = [
        [{"role": m.role, "content": m.content} for m in (*one.prompt, *one.answers[0].messages)] for one in examples()
    ]
    lengths = sorted(len(tokenizer.apply_chat_template(one, return_dict=False)) for one in turns)
    assert (found["rows"], found["sequences"], found["tokens"]) == (60, 60, sum(lengths))
    assert found["percentiles"]["longest"] == lengths[-1] and found["percentiles"]["shortest"] == lengths[0]
    share = sum(length <= found["percentiles"]["90%"] for length in lengths) / 60
    assert 0.9 <= share < 0.9 + 0.1
    assert sum(bar["count"] for bar in found["histogram"]) == 60
    for bar in found["histogram"]:
        assert bar["count"] == sum(bar["from"] <= length <= bar["to"] for length in lengths)


@given(
    sizes=st.lists(st.lists(st.sampled_from([1, 2, 9, 1500]), max_size=3), max_size=8), cuts=st.lists(st.integers(0, 8))
)
@settings(max_examples=10, deadline=None)
def test_pieces_come_to_what_the_whole_comes_to(sizes, cuts):
    """However the rows are shared out among processes."""
    items = [
        Item(
            Row(f"{'ab'[n % 2]}.jsonl:{n}", {}),
            "train",
            tokens=[Tokens([0] * size, [(n + at) % 3 > 0 for at in range(size)]) for size in some],
            fault=None if some else "nothing",
        )
        for n, some in enumerate(sizes)
    ]
    whole = measured(items)
    parts, edges = Lengths(), sorted([0, *cuts, len(items)])
    for start, end in pairwise(edges):
        parts.take(measured(items[start:end]))
    assert parts.summary(64) == whole.summary(64)


@pytest.mark.parametrize("limit", [24, 40, 64])
def test_a_cutoff_costs_what_cutting_there_loses(ask, data, model_folder, tokenizer, limit):
    words = ["--model", model_folder, f"data.max_length={limit}", "data.eval_size=0", "--json"]
    [cost] = [one for one in json.loads(ask("data", "stats", data, *words))["cutoffs"] if one["chosen"]]
    whole, cutting = (Renderer(tokenizer, Data(path="", max_length=most)) for most in (10_000, limit))
    cut = lost = 0
    for example in examples():
        [tokens] = whole.render(example, "answers")
        cut += len(tokens.ids) > limit
        try:
            [left] = cutting.render(example, "answers")
        except NoTarget:
            lost += sum(tokens.learn)
        else:
            lost += sum(tokens.learn) - sum(left.learn)
    assert (cost["max_length"], cost["cut"], cost["lost"]) == (limit, cut, lost)
    assert 0 < cost["time"] <= 1 and 0 < cost["memory"] <= 1


def test_people_see_bars_sources_and_costs(ask, data, model_folder):
    out = ask("data", "stats", data, "--model", model_folder)
    assert "60 rows: " in out and "█" in out and "a.jsonl" in out and "data.max_length" in out


def test_without_a_model_there_are_no_tokens_to_count(data, capsys):
    with pytest.raises(SystemExit) as left:
        main(["data", "stats", str(data)])
    assert left.value.code == 2 and "--model" in capsys.readouterr().err


def test_held_out_rows_and_texts_are_counted_by_split(ask, tmp_path, model_folder):
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "train.txt").write_text("one two three\nthe quick brown fox\n" * 5)
    (folder / "test.txt").write_text("yes no\n")
    found = json.loads(ask("data", "stats", folder, "--model", model_folder, "--json"))
    assert [(s["split"], s["rows"]) for s in found["sources"]] == [("train", 10), ("test", 1)]
