"""A LLaMA-Factory data folder works as it is: its names, its columns, its quirks; what is wrong in it is named."""

import json
import os

import pytest
from tinydata import examples_of

from tunesmith.data.reading.dataset_info import entries, named
from tunesmith.data.reading.source import Named, read, splits
from tunesmith.errors import DataError
from tunesmith.model.hub import locate_data
from tunesmith.run import Data

TURNS = [{"from": "human", "value": "one"}, {"from": "gpt", "value": "two"}]
OPENAI = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
TAGS = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
TWO = {"chosen": {"from": "gpt", "value": "two"}, "rejected": {"from": "gpt", "value": "three"}}


@pytest.fixture
def folder(tmp_path):
    """A function that makes a folder with one dataset, called `rows`."""

    def make(entry, *rows, file="rows.json"):
        (tmp_path / "dataset_info.json").write_text(json.dumps({"other": {"file_name": "other.json"}, "rows": entry}))
        (tmp_path / file).write_text(json.dumps(rows))
        return tmp_path

    return make


def only_local(name):
    raise AssertionError(f"asked a hub for {name}")


def dataset(folder):
    found = named(folder / "rows", only_local)
    assert isinstance(found, Named)
    return found


@pytest.mark.parametrize(
    ("entry", "row"),
    [
        ({}, {"instruction": "one", "input": "", "output": "two"}),
        ({"columns": {"prompt": "q", "response": "a"}}, {"q": "one", "a": "two", "input": "not read"}),
        ({"formatting": "sharegpt"}, {"conversations": TURNS}),
        ({"formatting": "sharegpt", "columns": {"messages": "said"}, "tags": TAGS}, {"said": OPENAI}),
        ({"formatting": "openai", "columns": {"messages": "said"}, "tags": TAGS}, {"said": OPENAI}),
    ],
)
def test_every_formatting_reads_the_same_dialogue(folder, entry, row):
    found = dataset(folder({"file_name": "rows.json"} | entry, row, row))
    examples = examples_of(Data(path="", eval_size=0.0), found)
    assert [[turn.content for turn in (*one.prompt, *one.answers[0].messages)] for one in examples] == [
        ["one", "two"],
        ["one", "two"],
    ]


@pytest.mark.parametrize(
    ("entry", "row"),
    [
        ({"columns": {"prompt": "q", "chosen": "c", "rejected": "r"}}, {"q": "one", "c": "two", "r": "three"}),
        (
            {
                "formatting": "sharegpt",
                "columns": {"messages": "conversations", "chosen": "chosen", "rejected": "rejected"},
            },
            {"conversations": TURNS[:1], **TWO},
        ),
    ],
)
def test_ranking_gives_two_answers(folder, entry, row):
    found = dataset(folder({"file_name": "rows.json", "ranking": True} | entry, row))
    example = found.format.read(row)
    assert [turn.content for turn in example.prompt] == ["one"]
    assert [answer.messages[0].content for answer in example.answers] == ["two", "three"]


@pytest.mark.parametrize(
    ("entry", "row"),
    [
        ({"columns": {"prompt": "q", "response": "a", "kto_tag": "k"}}, {"q": "one", "a": "two", "k": False}),
        (
            {"formatting": "sharegpt", "columns": {"messages": "said", "kto_tag": "k"}, "tags": TAGS},
            {"said": OPENAI, "k": False},
        ),
    ],
)
def test_kto_gives_one_answer_that_was_liked_or_not(folder, entry, row):
    example = dataset(folder({"file_name": "rows.json"} | entry, row)).format.read(row)
    assert example.answers[0].messages[0].content == "two"
    assert example.liked is False


def test_a_prompt_alone_is_a_text(folder):
    found = dataset(folder({"file_name": "rows.json", "columns": {"prompt": "body"}}, {"body": "words"}))
    assert found.format.read({"body": "words"}).text == "words"


def test_a_name_is_found_through_the_folder_and_reads_all_its_rows(folder):
    rows = [{"instruction": str(n), "input": "", "output": str(n)} for n in range(7)]
    where = folder({"file_name": "rows.json", "num_samples": 3}, *rows)
    found = locate_data(str(where / "rows"))
    assert [row.values for row in read(splits(found)["train"])] == rows
    assert len(examples_of(Data(path="", eval_size=0.0), found)) == 3
    assert len(examples_of(Data(path="", eval_size=0.0, max_samples=5), found)) == 5
    assert locate_data(str(where / "rows.json")) == where / "rows.json"


def test_the_folder_alone_says_what_to_choose_from(folder):
    where = folder({"file_name": "rows.json"})
    with pytest.raises(DataError, match="name one, as in data.path=.*/NAME: other, rows"):
        locate_data(str(where))
    with pytest.raises(DataError, match=r"dataset_info.json: has no dataset 'row' \(did you mean 'rows'"):
        locate_data(str(where / "row"))


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ([], "rows: must be an object"),
        ({"file_name": "rows.json", "formating": "sharegpt"}, "unknown key 'formating'; did you mean 'formatting'"),
        ({"file_name": "rows.json", "columns": {"promt": "a"}}, "unknown key 'promt'; did you mean 'prompt'"),
        ({"file_name": "rows.json", "columns": {"prompt": 1}}, "'columns' must be an object of names"),
        ({"file_name": "rows.json", "columns": {"response": "a"}}, "'columns' must name a prompt"),
        ({"file_name": "rows.json", "formatting": "chat"}, "unknown formatting 'chat'"),
        ({"file_name": "rows.json", "ranking": "yes"}, "'ranking' must be true or false"),
        ({"file_name": "rows.json", "ranking": True}, "'columns' must name chosen"),
        ({"file_name": "rows.json", "num_samples": 0}, "'num_samples' must be a whole number"),
        ({"file_name": "rows.json", "split": "test"}, "'split' and 'subset' choose within a repository"),
        ({"file_name": "gone.json"}, "gone.json is not there"),
        ({"file_name": "../elsewhere.json"}, "elsewhere.json: leads out of"),
        ({"file_name": "/etc/hostname"}, "/etc/hostname: leads out of"),
        ({"script_url": "a.py"}, "'script_url' names a script, and no code that comes with data is run"),
        ({"script_url": "a.py", "file_name": "rows.json"}, "'script_url' names a script"),
        ({"cloud_file_name": "s3://a/b"}, "'cloud_file_name' names a file in a cloud"),
        ({"formatting": "sharegpt"}, "names no source; expected one of hf_hub_url"),
    ],
)
def test_a_mistake_is_named(folder, entry, sentence):
    with pytest.raises(DataError, match=sentence):
        named(folder(entry) / "rows", only_local)


def test_a_link_that_leaves_the_folder_is_refused(folder, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "secret.json"
    outside.write_text("[]")
    where = folder({"file_name": "link.json"})
    (where / "link.json").symlink_to(outside)
    with pytest.raises(DataError, match=r"link.json: leads out of .*, to .*secret.json"):
        named(where / "rows", only_local)


def test_a_broken_dataset_info_is_named_with_its_line(tmp_path):
    (tmp_path / "dataset_info.json").write_text('{"a": {"file_name": "a.json"},\n"a": }')
    with pytest.raises(DataError, match=r"dataset_info.json:2: is not JSON"):
        entries(tmp_path / "dataset_info.json")
    (tmp_path / "dataset_info.json").write_text('{"a": {"file_name": "a.json"},\n"a": {}}')
    with pytest.raises(DataError, match='has the key "a" twice'):
        entries(tmp_path / "dataset_info.json")


def test_a_repository_is_asked_for_where_one_is_named(folder, tmp_path_factory, monkeypatch):
    repository = tmp_path_factory.mktemp("repository")
    for name in ("train-0.jsonl", "test-0.jsonl", "de/train.jsonl"):
        (repository / name).parent.mkdir(exist_ok=True)
        (repository / name).write_text("{}")
    asked = []

    def hub(name):
        asked.append(name)
        return repository

    def files(**entry):
        found = named(folder({"ms_hub_url": "a/ms", "file_name": "rows.json"} | entry) / "rows", hub)
        return {split: [os.path.relpath(file, repository) for file in files] for split, files in splits(found).items()}

    assert files(hf_hub_url="a/hf", subset="de") == {"train": ["de/train.jsonl"]}
    assert files(split="test") == {"train": ["test-0.jsonl"]}
    monkeypatch.setenv("USE_MODELSCOPE_HUB", "1")
    assert files(hf_hub_url="a/hf", folder="de") == {"train": ["de/train.jsonl"]}
    assert asked == ["a/hf", "modelscope:a/ms", "modelscope:a/ms"]
    with pytest.raises(DataError, match="'subset': the repository has no folder fr"):
        files(subset="fr")
    with pytest.raises(DataError, match="'split': no file of the repository has the name train_sft"):
        files(split="train_sft")
    with pytest.raises(DataError, match="must be a name"):
        files(split="train[:10%]")
    with pytest.raises(DataError, match="leads out of"):
        files(subset="../..")


def test_a_folder_that_datasets_saved_is_no_such_folder(tmp_path):
    (tmp_path / "dataset_info.json").write_text('{"features": {"a": {"dtype": "string"}}, "splits": {}}')
    assert entries(tmp_path / "dataset_info.json") == {}
    assert named(tmp_path, only_local) is None
