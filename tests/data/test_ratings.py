"""What raters said of a pair reaches the objective: from the row through the disk to the batch."""

import pytest

from tunesmith.data.batch import pack, pad, share
from tunesmith.data.example import Answer, Example, Message
from tunesmith.data.formats.preference import Preference
from tunesmith.data.keeping.store import Columns, Stored, Writer
from tunesmith.data.ratings import margin
from tunesmith.data.rendering.render import NoTarget, Renderer
from tunesmith.run import Data


def pair(better="a warm film", worse="a dull mess", **said):
    answers = tuple(Answer((Message("assistant", text),)) for text in (better, worse))
    return Example(prompt=(Message("user", "judge"),), answers=answers, origin="rows.jsonl:3", **said)


@pytest.fixture
def renderer(tokenizer):
    return Renderer(tokenizer, Data(path="rows.jsonl"))


@pytest.mark.parametrize("layout", [pack, share, pad], ids=["packed", "shared", "padded"])
def test_ratings_reach_the_batch_through_the_disk(tmp_path, renderer, layout):
    rated, plain = pair(ratings=((3.0, 1.0), (1.0, 0.0))), pair()
    sequences = [tokens for example in (plain, rated) for tokens in renderer.render(example, "ranked")]
    columns = Columns()
    for tokens in sequences:
        columns.add(tokens)
    with Writer(tmp_path) as writer:
        writer.add(columns)
        writer.close({})
    stored = Stored(tmp_path)
    assert stored[:] == sequences
    batch = layout(stored[:])
    assert batch.margin.tolist() == [0.0, 0.0, 1.5, 1.5]
    assert batch.agreement.tolist() == [1.0, 1.0, 0.875, 0.875]


def test_the_same_scores_in_another_order_are_level():
    """Their means differ in the last bit."""
    row = {"prompt": "judge", "chosen": "a", "rejected": "b"}
    read = Preference().read(row | {"chosen_ratings": [0.3, 0.2, 0.1], "rejected_ratings": [0.1, 0.2, 0.3]})
    assert read.ratings[0] == read.ratings[1][::-1] and -1e-9 < margin(read) < 0


def test_where_nobody_rated_nothing_is_kept(tmp_path, renderer):
    columns = Columns()
    for tokens in (sequences := renderer.render(pair(), "ranked")):
        columns.add(tokens)
    with Writer(tmp_path) as writer:
        writer.add(columns)
        writer.close({})
    assert not {file.name for file in tmp_path.iterdir()} & {"margin", "agreement", "weights"}
    assert Stored(tmp_path)[:] == sequences
    assert pack(sequences).margin is pack(sequences).agreement is None


def test_a_stop_token_is_missed_only_where_answers_are_to_be_written(tokenizer):
    tokenizer = type(tokenizer)(tokenizer_object=tokenizer.backend_tokenizer, eos_token="<|im_end|>")
    tokenizer.chat_template = "{% for message in messages %}{{ message.role + ': ' + message.content }}{% endfor %}"
    renderer = Renderer(tokenizer, Data(path="rows.jsonl"))
    unstopped = {aim: {one.unstopped for one in renderer.render(pair(), aim)} for aim in ("pairs", "ranked")}
    assert unstopped == {"pairs": {1}, "ranked": {0}}


@pytest.mark.parametrize(
    ("example", "longest", "sentence"),
    [
        (pair("a mess", "a mess"), 2048, "come to the same tokens, so that neither is the better$"),
        (pair("a dull mess", "a dull, lifeless film"), 34, "they differ only past data.max_length"),
    ],
)
@pytest.mark.parametrize("aim", ["pairs", "ranked"])
def test_answers_that_come_to_the_same_are_no_pair(tokenizer, example, longest, sentence, aim):
    with pytest.raises(NoTarget, match=sentence):
        Renderer(tokenizer, Data(path="rows.jsonl", max_length=longest)).render(example, aim)
