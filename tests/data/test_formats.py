"""Each format says what its rows mean; which format rows are in is told from their columns and what these hold."""

import json
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tinydata import examples_of

from tunesmith.data.example import Answer, Call, Example, Media, Message
from tunesmith.data.formats.base import format_
from tunesmith.data.reading.detect import detect
from tunesmith.errors import DataError, RecipeError
from tunesmith.run import Data

ASK, SAY, BAD = Message("user", "2+2?"), Message("assistant", "4"), Message("assistant", "5")
HUMAN, GPT = {"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}
USER, ASSISTANT = {"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}
WRONG = {"role": "assistant", "content": "5"}
PAIR = Example(prompt=(ASK,), answers=(Answer((SAY,)), Answer((BAD,))))


def read(rows, **options):
    """What a row means in the format that it is taken for, or in one that is named."""
    row = rows if isinstance(rows, dict) else rows[0]
    name = options.pop("name", None)
    way = format_[name].having(**options) if name else detect([row], "rows")[0]
    [example] = way.examples(row)
    return example


@pytest.mark.parametrize(
    ("row", "name", "reason"),
    [
        ({"instruction": "a", "output": "b", "input": ""}, "alpaca", "instruction, output and input (each text)"),
        ({"instruction": "a", "context": "c", "response": "b"}, "alpaca", "instruction, response and context"),
        ({"conversations": [HUMAN, GPT], "system": "x"}, "sharegpt", "conversations (a list of turns)"),
        ({"conversation": [USER, ASSISTANT]}, "sharegpt", "conversation"),
        ({"messages": [USER, ASSISTANT], "prompt": "2+2?"}, "messages", "messages (a list of turns)"),
        ({"messages": json.dumps([USER, ASSISTANT])}, "messages", "JSON of a list of turns"),
        ({"prompt": "a", "completion": "b"}, "completion", "prompt and completion (each text)"),
        ({"prompt": [USER], "completion": [ASSISTANT]}, "completion", "each a list of turns"),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "preference", "chosen, rejected and prompt (each text)"),
        ({"chosen": [USER, ASSISTANT], "rejected": [USER, WRONG]}, "preference", "each a list of turns"),
        ({"conversations": [HUMAN], "chosen": GPT, "rejected": GPT}, "preference", "each a turn"),
        ({"instruction": "a", "input": "", "chosen": "b", "rejected": "c"}, "preference", "instruction"),
        ({"question": "a", "chosen": "b", "rejected": "c"}, "preference", "question"),
        ({"prompt": "a", "completion": "b", "label": True}, "feedback", "label (true or false)"),
        ({"messages": [USER, ASSISTANT], "label": False}, "feedback", "messages (a list of turns)"),
        ({"instruction": "a", "output": "b", "kto_tag": True}, "feedback", "kto_tag"),
        ({"query": "a", "response": "b"}, "qa", "query and response (each text)"),
        ({"question": "a", "answer": "b"}, "qa", "question and answer"),
        ({"prompt": "a", "answer": "b"}, "truth", "prompt and answer"),
        ({"prompt": [USER], "ground_truth": "b"}, "truth", "ground_truth"),
        ({"text": "a", "label": 0}, "labelled", "label (a whole number)"),
        ({"text": "a", "label": ["x", "y"]}, "labelled", "label (a list of texts)"),
        ({"text": "a", "id": 0}, "text", "text (text)"),
        ({"content": "a", "url": "b"}, "text", "content"),
        ({"input_ids": [1, 2], "labels": [-100, 2]}, "tokenised", "a list of whole numbers"),
    ],
)
def test_a_format_is_told_by_columns_and_what_they_hold(row, name, reason):
    way, why = detect([row], "rows")
    assert way.name == name
    assert why.startswith(f"read as {name}, because it has ") and reason in why
    assert way.examples(row)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"a": 1, "b": "x"}, r"no format has the columns a \(a whole number\) and b \(text\)"),
        ({"messages": "hello"}, r"messages \(text\)"),
        ({"text": "", "label": "", "prompt": "", "completion": ""}, "several ways"),
        ({"conversations": [HUMAN, GPT], "messages": [USER, ASSISTANT]}, "several ways"),
        ({"question": "a", "answer": "b", "response": "c"}, "data.format.name=qa data.format.answer=response"),
        ({"prompt": "a", "answer": "b", "response": "c"}, "truth .* qa|qa .* truth"),
    ],
)
def test_rows_that_fit_nothing_or_several_are_refused_with_the_choice(row, message):
    with pytest.raises(DataError, match=message):
        detect([row], "rows")


def test_a_few_broken_rows_do_not_change_what_the_rest_is_taken_for():
    rows = [{"prompt": "a", "completion": "b"}] * 30
    for broken in (
        {"prompt": None, "completion": "b"},
        {"prompt": ["x"], "completion": "b"},
        {"text": "t", "label": "l"},
    ):
        for at in (0, 15, 30):
            assert detect([*rows[:at], broken, *rows[at:]], "rows")[0].name == "completion"


def test_the_same_dialogue_is_the_same_in_every_format():
    same = {
        "alpaca": {"instruction": "2+2?", "output": "4"},
        "sharegpt": {"conversations": [HUMAN, GPT]},
        "messages": {"messages": [USER, ASSISTANT]},
        "completion": {"prompt": "2+2?", "completion": [ASSISTANT]},
        "qa": {"query": "2+2?", "response": "4"},
        "template": {"a": "2+2?", "b": "4"},
    }
    options = {"template": {"prompt": "{a}", "answer": "{b}"}, "qa": {"question": "query", "answer": "response"}}
    said = {name: read(row, name=name, **options.get(name, {})) for name, row in same.items()}
    assert {name: example for name, example in said.items() if example != said["messages"]} == {}
    assert said["messages"] == Example(prompt=(ASK,), answers=(Answer((SAY,)),))


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "2+2?", "chosen": "4", "rejected": "5"},
        {"prompt": [USER], "chosen": [ASSISTANT], "rejected": [WRONG]},
        {"chosen": [USER, ASSISTANT], "rejected": [USER, WRONG]},
        {"prompt": "2+2?", "chosen": [USER, ASSISTANT], "rejected": [USER, WRONG]},
        {"conversations": [HUMAN], "chosen": GPT, "rejected": {"from": "gpt", "value": "5"}},
        {"instruction": "2+2?", "input": "", "chosen": "4", "rejected": "5"},
        {"chosen": "\n\nHuman: 2+2?\n\nAssistant: 4", "rejected": "\n\nHuman: 2+2?\n\nAssistant: 5"},
    ],
)
def test_a_preference_is_the_same_in_every_shape(row):
    assert read(row) == PAIR


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "2+2?", "completion": "4", "label": True},
        {"prompt": [USER], "completion": [ASSISTANT], "label": "true"},
        {"messages": [USER, ASSISTANT], "label": True},
        {"conversations": [HUMAN, GPT], "kto_tag": 1},
        {"instruction": "2+2?", "output": "4", "kto_tag": True},
    ],
)
def test_feedback_is_the_same_in_every_shape(row):
    assert read(row) == Example(prompt=(ASK,), answers=(Answer((SAY,)),), liked=True)


def test_tools_calls_and_what_they_answer_are_the_same_in_both_styles():
    schema = {"name": "add", "parameters": {"type": "object"}}
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 2}'}}
    openai = {
        "messages": [
            USER,
            {"role": "assistant", "content": None, "tool_calls": [call], "reasoning_content": "hm"},
            {"role": "tool", "content": "4", "tool_call_id": "c1", "name": "add"},
            ASSISTANT,
        ],
        "tools": [{"type": "function", "function": schema}],
    }
    sharegpt = {
        "conversations": [
            HUMAN,
            {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 2}, "id": "c1"}', "thinking": "hm"},
            {"from": "observation", "value": "4", "tool_call_id": "c1", "name": "add"},
            GPT,
        ],
        "tools": json.dumps([schema]),
    }
    said = read(openai)
    assert said == read(sharegpt)
    assert said.tools == ({"type": "function", "function": schema},)
    assert said.prompt[1] == Message("assistant", "", None, "hm", (Call("add", {"a": 2}, "c1"),))


def test_what_is_thought_before_a_call_stays_in_the_turn():
    value = (
        '<think>\nadd them\n</think>\n\n[{"name": "f", "arguments": {}}, {"name": "g", "arguments": "{\\"x\\": 1}"}]'
    )
    example = read({"conversations": [HUMAN, {"from": "function_call", "value": value}]})
    turn = example.answers[0].messages[0]
    assert turn.content == "<think>\nadd them\n</think>\n\n"
    assert turn.calls == (Call("f", {}), Call("g", {"x": 1}))


@pytest.mark.parametrize(
    ("turn", "weight"),
    [({}, None), ({"train": False}, 0.0), ({"train": True}, 1.0), ({"weight": 0}, 0.0), ({"weight": 0.5}, 0.5)],
)
def test_a_turn_says_how_much_it_counts(turn, weight):
    assert read({"messages": [USER, ASSISTANT | turn]}).answers[0].messages[0].weight == weight


def test_a_turn_says_that_it_was_cut_off():
    row = {"messages": [USER, ASSISTANT | {"ended": False}]}
    example = read(row)
    assert not example.answers[0].messages[0].ended and read({"messages": [USER, ASSISTANT | {"ended": True}]}).gold
    assert format_["messages"].having().write(example)["messages"][-1]["ended"] is False
    for wrong in (ASSISTANT | {"ended": "no"}, ASSISTANT | {"ended": 0}):
        with pytest.raises(ValueError, match="'ended' must be true"):
            read({"messages": [USER, wrong]})
    with pytest.raises(ValueError, match="'ended' must be true"):
        read({"messages": [USER | {"ended": False}, ASSISTANT]})


def test_what_the_assistant_says_in_a_prompt_is_not_learnt():
    row = {"prompt": [USER, ASSISTANT, USER], "completion": [ASSISTANT]}
    example = read(row)
    assert [turn.weight for turn in (*example.prompt, *example.answers[0].messages)] == [None, 0.0, None, None]


@pytest.mark.parametrize(
    ("row", "media"),
    [
        ({"images": ["a.jpg", "b.jpg"]}, Media(images=("a.jpg", "b.jpg"))),
        ({"images": "a.jpg"}, Media(images=("a.jpg",))),
        ({"images": '["a.jpg"]'}, Media(images=("a.jpg",))),
        ({"videos": [{"path": "a.mp4", "bytes": None}]}, Media(videos=("a.mp4",))),
        ({"audios": [{"url": "https://a/b.wav"}]}, Media(audios=("https://a/b.wav",))),
        ({"images": [{"bytes": b"\x89P", "path": "a.png"}]}, Media(images=("data:;base64,iVA=",))),
        ({"images": None}, Media()),
    ],
)
def test_media_are_carried_beside_a_dialogue(row, media):
    assert read({"messages": [USER, ASSISTANT]} | row).media == media
    assert read({"instruction": "a", "output": "b"} | row).media == media


def test_parts_of_a_turn_are_its_text_with_marks_for_media():
    parts = [
        {"type": "text", "text": "see "},
        {"type": "image_url", "image_url": {"url": "https://a/b.png"}},
        {"type": "text", "text": " and "},
        {"type": "image", "image": "c.png"},
    ]
    example = read({"messages": [{"role": "user", "content": parts}, ASSISTANT]})
    assert example.prompt[0].content == "see <image> and <image>"
    assert example.media.images == ("https://a/b.png", "c.png")
    with pytest.raises(ValueError, match="names media, and so do the turns"):
        read({"messages": [{"role": "user", "content": parts}, ASSISTANT], "images": ["d.png"]})


@pytest.mark.parametrize(
    ("way", "row"),
    [
        (format_["messages"](), {"messages": [USER, {"role": "assistant", "content": "4", "loss": 0, "id": None}]}),
        (format_["messages"](), {"messages": json.dumps([USER, {"role": "model", "content": "4", "loss": True}])}),
        (
            format_["sharegpt"].having(role_tag="who", content_tag="says"),
            {"conversations": [{"who": "human", "says": "2+2?"}, {"who": "gpt", "says": "4", "loss": 1, "at": []}]},
        ),
        (format_["preference"](), {"prompt": "2+2?", "chosen": [ASSISTANT | {"loss": 1}], "rejected": "5"}),
        (format_["completion"](), {"prompt": [USER], "completion": ASSISTANT | {"loss": 1, "weight": None}}),
    ],
    ids=["messages", "json", "tags", "preference", "completion"],
)  # fmt: skip
def test_a_key_of_a_turn_that_means_nothing_is_noted(way, row):
    [example] = way.examples(row)
    turns = [*example.prompt, *(turn for answer in example.answers for turn in answer.messages)]
    assert [key for turn in turns for key in turn.unread] == ["loss"]
    assert all(turn == replace(turn, unread=()) for turn in turns)  # it means the same


def test_words_for_roles_and_keys_can_be_given():
    row = {"talk": [{"who": "me", "says": "2+2?"}, {"who": "it", "says": "4"}]}
    tags = {"role_tag": "who", "content_tag": "says", "user_tag": "me", "assistant_tag": "it"}
    example = read(row, name="sharegpt", conversations="talk", **tags)
    assert example == read({"messages": [USER, ASSISTANT]})
    assert format_["sharegpt"].having(conversations="talk", **tags).write(example) == row


def test_a_label_is_a_class_several_or_a_score():
    assert read({"text": "a", "label": 3}).label == "3"
    assert read({"text": "a", "label": ["x", "y"]}).labels == ("x", "y")
    assert read({"text": "a", "label": []}, name="labelled", kind="several").labels == ()
    assert read({"text": "a", "label": "x | y"}, name="labelled", kind="several", separator="|").labels == ("x", "y")
    assert read({"text": "a", "label": 0.5}).score == 0.5
    assert read({"text": "a", "label": "2"}, name="labelled", kind="score").score == 2.0


def test_tokens_are_taken_as_they_are_without_padding():
    assert read({"input_ids": [5, 6, 7]}).tokens == ((5, 6, 7), (5, 6, 7))
    row = {"input_ids": [5, 6, 0, 0], "labels": [-100, 6, -100, -100], "attention_mask": [1, 1, 0, 0]}
    assert read(row).tokens == ((5, 6), (-100, 6))


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("messages", {"messages": []}, "it is empty"),
        ("messages", {"messages": [USER, None]}, "a turn must be an object .*got null"),
        ("messages", {"messages": [{"role": "king", "content": "x"}]}, "unknown role 'king'; known: system, developer"),
        ("messages", {"messages": [{"role": ["user"], "content": "x"}]}, "unknown role"),
        ("messages", {"messages": [USER, {"role": "assistant", "content": None}]}, "must have text in 'content'"),
        ("messages", {"messages": [USER]}, "must end with an assistant's turn"),
        ("messages", {"messages": [USER, ASSISTANT | {"value": "5"}]}, "both content and value"),
        ("messages", {"messages": [USER, ASSISTANT | {"weight": -1}]}, "'weight' must be a number of at least 0"),
        ("messages", {"messages": [USER, ASSISTANT | {"train": False, "weight": 1}]}, "leave either out"),
        ("messages", {"messages": [USER, ASSISTANT | {"tool_calls": [{"id": "a"}]}]}, "object with name and arguments"),
        (
            "messages",
            {"messages": [{"role": "system", "content": "a"}, ASSISTANT], "system": "b"},
            "another in its first",
        ),
        ("messages", {"messages": [USER, ASSISTANT], "tools": "[{"}, "column 'tools' is not JSON"),
        ("messages", {"messages": [USER, ASSISTANT], "images": [3]}, "column 'images' must hold a path"),
        ("sharegpt", {"conversations": [HUMAN, {"from": "function_call", "value": "{name:"}]}, "is not JSON"),
        (
            "sharegpt",
            {"conversations": [HUMAN, {"from": "function_call", "value": '{"name":"f","name":"g"}'}]},
            "twice",
        ),
        ("sharegpt", {"conversations": "[" * 100_000}, "nested too deeply"),
        ("alpaca", {"instruction": "a", "output": None}, "'output' must be text .got null"),
        ("alpaca", {"instruction": "a", "output": ["b"]}, "'output' must be text"),
        ("alpaca", {"instruction": "a", "output": "b", "history": [["x"]]}, "pairs"),
        ("alpaca", {"instruction": "a"}, "needs the column output"),
        ("preference", {"chosen": "a", "rejected": "b"}, "begin with no turn in common"),
        (
            "preference",
            {"prompt": "q", "chosen": [USER, ASSISTANT], "rejected": [USER, WRONG]},
            "that are not the prompt",
        ),
        ("feedback", {"prompt": "a", "completion": "b", "label": "good"}, "must be true or false"),
        ("labelled", {"text": "a", "label": ["b"]}, "data.format.kind=several"),
        ("text", {"text": "a", "images": ["b"]}, "holds images, which text does not read"),
        ("tokenised", {"input_ids": [1, 2], "labels": [1]}, "has 1 labels for 2 input_ids"),
        ("tokenised", {"input_ids": [1, 2], "labels": [1, 2], "attention_mask": [1, 0]}, "learns padding"),
        ("tokenised", {"input_ids": [1, True]}, "whole numbers"),
        ("tokenised", {"input_ids": [1, -1]}, "a token id is at least 0"),
        ("tokenised", {"input_ids": [1, 2, 3], "attention_mask": [1, 0, 1]}, "only where padding stands"),
    ],
)
def test_what_cannot_be_meant_is_a_sentence(name, row, message):
    with pytest.raises(ValueError, match=message):
        read(row, name=name)


def test_a_bad_row_is_named_with_its_line(tmp_path):
    file = tmp_path / "rows.jsonl"
    rows = [{"messages": [USER, ASSISTANT]}] * 3 + [{"messages": [USER, {"role": "assistant", "content": 4}]}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(
        DataError, match=r"rows.jsonl:4: cannot be read as messages: a turn must have text in 'content'"
    ):
        examples_of(Data(path="", eval_size=0.0), file)


WORDS = st.sampled_from(
    ["role", "content", "from", "value", "messages", "conversations", "prompt", "completion", "chosen", "rejected"]
    + ["text", "label", "input_ids", "labels", "tools", "images", "tool_calls", "function", "name", "arguments", "type"]
    + ["user", "assistant", "tool", "function_call", "weight", "train", "instruction", "output", "history", "system"]
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.just('{"name": "f"}'),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.dictionaries(WORDS, ANYTHING, max_size=6))
def test_whatever_a_row_holds_only_sentences_come_out(row):
    for name, entry in format_.all().items():
        if name not in ("auto", "process"):
            try:
                entry().examples(row)
            except ValueError as error:
                assert str(error)
    try:
        way, _ = detect([row], "rows")
    except DataError:
        return
    try:
        assert way.examples(row)
    except ValueError as error:
        assert str(error)


PROCESS = """
def halves(row):
    if "text" not in row:
        raise KeyError("text")
    middle = len(row["text"]) // 2
    return [{"prompt": part, "completion": "!"} for part in (row["text"][:middle], row["text"][middle:])]


def ids(row):
    row["text"] = "changed"
    return {"input_ids": (1, 2, 3), "labels": [-100, 2, 3], "attention_mask": [1, 1, 1]}


def number(row):
    return 3
"""


def test_a_function_of_ones_own_makes_rows_of_any_known_format(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(PROCESS)
    halves = format_["process"].having(file=str(file), function="halves")
    assert [example.prompt[0].content for example in halves.examples({"text": "abcd"})] == ["ab", "cd"]
    assert "which is run as it is" in halves.described()
    row = {"text": "a"}
    assert format_["process"].having(file=str(file), function="ids").read(row).tokens == ((1, 2, 3), (-100, 2, 3))
    assert row == {"text": "a"}


def test_what_goes_wrong_in_that_function_is_named_with_both_lines(tmp_path):
    file, rows = tmp_path / "mine.py", tmp_path / "rows.jsonl"
    file.write_text(PROCESS)
    rows.write_text('{"text": "ab"}\n{"txt": "ab"}\n')

    def fails(function):
        way = format_["process"].having(file=str(file), function=function)
        examples_of(Data(path="", eval_size=0.0, format=way), rows)

    with pytest.raises(DataError, match=r"rows.jsonl:2: .*halves of .*mine.py:4 raised KeyError: 'text'"):
        fails("halves")
    with pytest.raises(DataError, match=r"rows.jsonl:1: .*must give a row, .*gave 3"):
        fails("number")
    with pytest.raises(RecipeError, match="has no function nothing"):
        fails("nothing")
    file.write_text("def f(:\n")
    with pytest.raises(RecipeError, match=r"mine.py:1 cannot be loaded: SyntaxError"):
        fails("f")
    file.unlink()
    with pytest.raises(RecipeError, match="no such file"):
        fails("f")
