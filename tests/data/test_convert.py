"""What is converted says what it said: from any format to any other, in any kind of file, and back."""

import csv
import json
from itertools import product

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunesmith.cli import main
from tunesmith.data.example import Answer, Call, Example, Media, Message, dialogue
from tunesmith.data.formats.base import format_
from tunesmith.data.reading.guard import GUARDED, guarded, unguarded
from tunesmith.data.reading.source import read
from tunesmith.data.writing.convert import Conversion, convert
from tunesmith.data.writing.writers import WRITERS
from tunesmith.errors import DataError, RecipeError

WRITTEN = [
    *(entry() for name, entry in format_.all().items() if name not in ("auto", "template", "process")),
    format_["labelled"].having(kind="several"),
    format_["labelled"].having(kind="several", separator=";"),
    format_["labelled"].having(kind="score"),
    format_["feedback"].having(prompt="messages", completion=None),
    format_["sharegpt"].having(conversations="talk", role_tag="who", user_tag="me", function_tag="calls"),
]
TEXT = st.text(st.sampled_from("ab \n\t\r\"',;\\[]{}<>=+-@|\0\x1b\x85\u2028é好🙂"), max_size=8)
WORD = st.text(st.sampled_from("abc_"), min_size=1, max_size=4)
VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
)
OBJECT = st.dictionaries(WORD, VALUES | st.lists(VALUES, max_size=2), max_size=3)
CALLS = st.lists(st.builds(Call, WORD, OBJECT, st.none() | WORD), max_size=2).map(tuple)
WEIGHT = st.none() | st.sampled_from([0.0, 0.5, 1.0])
PLAIN = st.builds(Message, st.sampled_from(["system", "user", "assistant"]), TEXT)
TURN = PLAIN | st.builds(
    Message, st.sampled_from(["user", "tool"]), TEXT, WEIGHT, st.none(), st.just(()), st.none() | TEXT, st.none() | TEXT
)
SAID = st.builds(Message, st.just("assistant"), TEXT)
FULL = st.builds(Message, st.just("assistant"), TEXT | st.just("<think>a</think>"), WEIGHT, st.none() | TEXT, CALLS)
PROMPT = st.lists(TURN | FULL, max_size=3).map(tuple) | st.builds(lambda text: (Message("user", text),), TEXT)
TOOL = st.builds(lambda name, more: {"type": "function", "function": {**more, "name": name}}, WORD, OBJECT)
PATHS = st.lists(WORD, max_size=2).map(tuple)
BESIDE = {"tools": st.lists(TOOL, max_size=2).map(tuple), "media": st.builds(Media, PATHS, PATHS, PATHS)}
ANSWER = st.lists(SAID | FULL, min_size=1, max_size=2).map(lambda turns: Answer(tuple(turns)))
ONE = st.builds(lambda turn: Answer((turn,)), SAID | FULL)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
SPANS = (0, 4), (-4, 0)
SCORES = st.tuples(*(st.lists(st.integers(*span).map(float), min_size=1, max_size=3).map(tuple) for span in SPANS))
RATED = {
    "ratings": st.just(()) | SCORES,
    "margin": st.none() | st.floats(0, 9),
    "agreement": st.none() | st.floats(0.5, 1),
}
TOKEN = st.tuples(st.integers(0, 99), st.integers(-100, 99))
EXAMPLES = st.one_of(
    st.builds(Example, prompt=PROMPT, answers=st.tuples(ONE), **BESIDE),
    st.builds(Example, prompt=PROMPT, answers=st.tuples(ONE | ANSWER, ONE | ANSWER), **BESIDE),
    st.builds(Example, prompt=PROMPT, answers=st.tuples(ONE | ANSWER, ONE | ANSWER), **RATED),
    st.builds(Example, prompt=PROMPT, answers=st.tuples(ONE | ANSWER), liked=st.booleans(), **BESIDE),
    st.builds(Example, prompt=PROMPT, truth=TEXT, **BESIDE),
    st.builds(Example, text=TEXT),
    st.builds(Example, text=TEXT, label=TEXT),
    st.builds(Example, text=TEXT, labels=st.lists(TEXT, max_size=3).map(tuple)),
    st.builds(Example, text=TEXT, score=NUMBER),
    st.lists(TOKEN).map(lambda pairs: Example(tokens=(tuple(a for a, _ in pairs), tuple(b for _, b in pairs)))),
)
OFTEN = settings(max_examples=200, deadline=None, suppress_health_check=[*HealthCheck])


def rows_of(example):
    """The rows of an example in each format that can hold it, as texts and as turns."""
    for way, as_turns in product(WRITTEN, (False, True)):
        try:
            yield way, way.write(example, as_turns)
        except ValueError as error:
            assert str(error)


@OFTEN
@given(EXAMPLES)
def test_a_format_that_takes_an_example_gives_it_back(example):
    for way, row in rows_of(example):
        assert way.examples(json.loads(json.dumps(row))) == [example], way.name


@OFTEN
@given(EXAMPLES)
def test_every_example_has_a_format_that_holds_it(example):
    assert {way.name for way, _ in rows_of(example)} - {"sharegpt"}


@settings(OFTEN, max_examples=60)
@given(EXAMPLES, st.sampled_from(sorted(WRITERS)), st.data())
def test_there_and_back_through_files_loses_nothing(tmp_path_factory, example, suffix, data):
    folder = tmp_path_factory.mktemp("files")
    first, second, third = folder / "a.jsonl", folder / f"b{suffix}", folder / "c.jsonl"
    ways = dict.fromkeys(way for way, _ in rows_of(example))
    there, between = (data.draw(st.sampled_from([*ways])) for _ in "ab")
    first.write_text(json.dumps(there.write(example)) + "\n")
    try:
        convert([first], second, Conversion(source=there, target=between))
    except DataError as error:
        assert suffix in (".csv", ".tsv", ".parquet") and "nothing was written" in str(error)
        assert [*folder.iterdir()] == [first]
        return
    convert([second], third, Conversion(source=between, target=there))
    assert [there.read(row.values) for row in read([third])] == [example]
    assert {file.name for file in folder.iterdir()} == {first.name, second.name, third.name}


@pytest.mark.parametrize("suffix", WRITERS)
def test_tools_and_calls_go_through_every_kind_of_file(tmp_path, suffix):
    call = Message("assistant", "", calls=(Call("add", {"a": [1, 2.5, None], "b": {"c": "好"}}, "id1"),))
    tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
    other = {"type": "function", "function": {"name": "sub", "parameters": {"required": ["x"]}, "strict": True}}
    said = (Message("user", "add"), call, Message("tool", "3", name="add", call_id="id1"), Message("assistant", "3"))
    examples = [dialogue(said, tools=(tool, other)), dialogue(said[:1] + said[3:])]
    file, out = tmp_path / "a.jsonl", tmp_path / f"b{suffix}"
    file.write_text("".join(json.dumps(format_["sharegpt"]().write(example)) + "\n" for example in examples))
    convert([file], out, Conversion(target=format_["messages"]()))
    assert [format_["messages"]().read(row.values) for row in read([out])] == examples


@given(st.dictionaries(WORD, TEXT | st.text(max_size=4), min_size=1))
@settings(deadline=None)
def test_a_guarded_cell_does_no_harm_and_comes_back(row):
    safe = guarded(row)
    assert unguarded(safe) == row
    for column, cell in safe.items():
        assert column == GUARDED or not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
        assert all(letter in "\n\t" or ord(letter) >= 32 and not 0x7F <= ord(letter) < 0xA0 for letter in cell)


def test_a_table_says_which_cells_it_guards(tmp_path):
    file, out = tmp_path / "a.jsonl", tmp_path / "b.csv"
    rows = [{"text": "=cmd|' /C calc'!A0"}, {"text": "'tis"}, {"text": "\x1b[31mred"}, {"text": "plain"}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    convert([file], out, Conversion(target=format_["text"]()))
    with out.open(newline="") as sheet:
        cells = list(csv.DictReader(sheet))
    assert [cell["text"] for cell in cells] == ["'=cmd|' /C calc'!A0", "'tis", "'\\u001b[31mred", "plain"]
    assert [row.values for row in read([out])] == rows
    out.write_text(f'text,{GUARDED}\n=1,"[""text""]"\n')
    with pytest.raises(DataError, match=r"b.csv:2: column 'tunesmith.guarded' must name"):
        list(read([out]))


@pytest.mark.parametrize(
    ("row", "words", "message"),
    [
        ({"text": "a"}, ["--to", "messages"], "messages cannot hold a plain text"),
        ({"text": "a"}, ["--to", "template"], "template is for reading alone; take alpaca"),
        ({"text": "a"}, ["--to", "massages"], "did you mean 'messages'?"),
        ({"text": "a"}, ["--to", "text", "target.column=x"], "target.text.column: no such key"),
        ({"a": 1}, ["--to", "text"], "no format has the columns a (a whole number)"),
        ({"prompt": None, "completion": ""}, ["--to", "text", "--from", "completion"], "jsonl:1: cannot be read"),
        (
            {"messages": [{"role": "assistant", "content": "a", "tool_calls": [{"name": "f"}]}]},
            ["--to", "sharegpt"],
            "a.jsonl:1: cannot be written as sharegpt: sharegpt cannot hold a turn that both speaks and calls a tool",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_converted_is_a_sentence_and_writes_nothing(tmp_path, capsys, row, words, message):
    file, out = tmp_path / "a.jsonl", tmp_path / "b.json"
    file.write_text(json.dumps(row) + "\n")
    with pytest.raises(SystemExit):
        main(["data", "convert", str(file), str(out), *words])
    assert message in capsys.readouterr().err
    assert [*tmp_path.iterdir()] == [file]


def test_a_command_converts_and_says_what_it_did_not_carry_over(tmp_path, capsys):
    file, out = tmp_path / "a.jsonl", tmp_path / "b.json"
    file.write_text('{"q": "2+2?", "response": "4", "id": 7}\n{"q": "3+3?", "response": "6"}\n')
    words = ["data", "convert", str(file), str(out), "--to=messages", "--from=qa"]
    with pytest.raises(SystemExit) as left:
        main([*words, "source.question=q", "source.answer=response"])
    assert not left.value.code
    said = capsys.readouterr().out
    assert "not carried over, as the format does not read them: id" in said
    assert "2 rows as messages, read back and found the same" in said
    assert json.loads(out.read_text())[1]["messages"][0] == {"role": "user", "content": "3+3?"}


def test_keys_of_turns_that_are_not_carried_over_are_said(tmp_path):
    file = tmp_path / "a.jsonl"
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "loss": False}]
    file.write_text(json.dumps({"messages": turns}) + "\n")
    assert [*convert([file], tmp_path / "b.json", Conversion(target=format_["qa"]())).unread] == ["loss of turns"]


def test_what_is_there_is_not_written_over_and_kinds_of_files_are_known(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "a"}\n')
    with pytest.raises(RecipeError, match="is there already"):
        convert([file], file, Conversion(target=format_["text"]()))
    with pytest.raises(RecipeError, match="must end with one of .json, .jsonl, .csv"):
        convert([file], tmp_path / "b.xlsx", Conversion(target=format_["text"]()))
    assert file.read_text() == '{"text": "a"}\n'


def test_paths_of_media_that_start_elsewhere_are_said(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text('{"prompt": "<image>?", "completion": "b", "images": ["c.png"]}\n')
    how = Conversion(target=format_["qa"]())
    assert convert([file], tmp_path / "here.json", how).moved is None
    assert convert([file], tmp_path / "below" / "there.json", how).moved == tmp_path
