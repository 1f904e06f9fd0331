"""Which files a source has: by their names, in folders, by patterns, as `datasets` saves them; never from elsewhere."""

import json
import logging
from dataclasses import replace

import pyarrow as pa
import pytest
from tinydata import examples_of

from tunesmith.data.example import Media
from tunesmith.data.keeping.material import prepare
from tunesmith.data.reading.media import check_media
from tunesmith.data.reading.places import places
from tunesmith.data.reading.source import read, splits
from tunesmith.errors import DataError
from tunesmith.model.hub import locate_data
from tunesmith.objectives.pretrain import Pretrain
from tunesmith.run import Data, Model, Run


@pytest.fixture
def files(tmp_path):
    """A function that makes files of one row each, which is the file's name."""

    def make(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(json.dumps({"text": name}))
        return tmp_path

    return make


def names(place, root):
    return {split: [file.relative_to(root).as_posix() for file in files] for split, files in splits(place).items()}


def test_a_folder_is_split_by_the_names_of_files_and_folders(files, caplog):
    root = files("train-0.jsonl", "validation/0.json", "test_1.csv", "deep/train/1.txt", ".hidden/train.jsonl", "x.md")
    assert names(root, root) == {
        "train": ["deep/train/1.txt", "train-0.jsonl"],
        "validation": ["validation/0.json"],
        "test": ["test_1.csv"],
    }
    with caplog.at_level(logging.INFO, "tunesmith"):
        names(files("more.jsonl"), root)
    assert f"{root}: of no split, and not read: more.jsonl" in caplog.text


def test_a_folder_whose_name_ends_as_a_file_s_is_a_folder(files):
    root = files("x.json/a.jsonl", "x.json/b.jsonl")
    assert names(root / "x.json", root) == {"train": ["x.json/a.jsonl", "x.json/b.jsonl"]}
    assert names(root, root) == {"train": ["x.json/a.jsonl", "x.json/b.jsonl"]}


def test_a_pattern_names_the_files_that_it_matches(files):
    root = files("a-1.jsonl", "a-2.jsonl", "b.jsonl", "c.csv", "deep/d.jsonl", "dataset_info.json")
    assert names(locate_data(f"{root}/a-*.jsonl"), root) == {"train": ["a-1.jsonl", "a-2.jsonl"]}
    assert names(locate_data(f"{root}/[ab]*"), root) == {"train": ["a-1.jsonl", "a-2.jsonl", "b.jsonl"]}
    assert names(locate_data(f"{root}/**/d.jsonl"), root) == {"train": ["deep/d.jsonl"]}
    for wrong in ("none-*.jsonl", "*.md", "**d"):
        with pytest.raises(DataError, match="no file to train on|is no pattern"):
            splits(locate_data(f"{root}/{wrong}"))
    (root / "odd[1].jsonl").write_text('{"text": "a name is no pattern if it is there"}')
    assert names(locate_data(f"{root}/odd[1].jsonl"), root) == {"train": ["odd[1].jsonl"]}


def test_a_link_out_of_a_folder_is_refused_but_may_be_named_itself(files, tmp_path_factory):
    root, outside = files("a.jsonl"), tmp_path_factory.mktemp("outside") / "b.jsonl"
    outside.write_text('{"text": "b"}')
    (root / "b.jsonl").symlink_to(outside)
    for place in (root, root / "*.jsonl"):
        with pytest.raises(DataError, match=r"b.jsonl: leads out of .*, to .*name that file itself if you mean it"):
            splits(place)
    assert [row.values for row in read(splits(root / "b.jsonl")["train"])] == [{"text": "b"}]


def test_links_of_the_hub_s_cache_are_followed(tmp_path):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshots/1").mkdir(parents=True)
    (tmp_path / "blobs/abc").write_text('{"text": "a"}')
    (tmp_path / "snapshots/1/a.jsonl").symlink_to("../../blobs/abc")
    assert [row.values for row in read(splits(tmp_path / "snapshots/1")["train"])] == [{"text": "a"}]


def test_a_link_to_nothing_is_named(tmp_path):
    (tmp_path / "a.jsonl").symlink_to("gone.jsonl")
    with pytest.raises(DataError, match=r"a.jsonl: cannot be read: No such file"):
        list(read(splits(tmp_path)["train"]))


def saved(folder, split, text):
    """What save_to_disk of `datasets` writes, as far as it concerns rows."""
    folder.mkdir(parents=True)
    table = pa.table({"text": [text]})
    for name in ("data-00000-of-00001.arrow", "cache-123.arrow"):
        with pa.OSFile(str(folder / name), "wb") as out, pa.ipc.new_stream(out, table.schema) as writer:
            writer.write_table(table)
    state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_fingerprint": "1", "_split": split}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text(json.dumps({"features": {"text": {"dtype": "string"}}}))


def test_a_saved_dataset_is_read_without_what_was_cached_beside_it(tmp_path):
    saved(tmp_path / "one", None, "a")
    assert [row.values for row in read(splits(tmp_path / "one")["train"])] == [{"text": "a"}]
    for split in ("train", "dev", "other"):
        saved(tmp_path / "all" / split, split, split)
    (tmp_path / "all/dataset_dict.json").write_text('{"splits": ["train", "dev", "other"]}')
    found = splits(locate_data(str(tmp_path / "all")))
    assert {split: [row.values["text"] for row in read(files)] for split, files in found.items()} == {
        "train": ["train"],
        "validation": ["dev"],
    }


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("state.json", "{", "does not list"),
        ("state.json", "[]", "does not list"),
        ("state.json", '{"_data_files": [1]}', "does not list"),
        ("state.json", '{"_data_files": [{"filename": "../../x.arrow"}]}', "leads out of"),
        ("dataset_dict.json", '{"splits": [3]}', "does not list"),
        ("dataset_dict.json", '{"splits": ["/etc"]}', "leads out of"),
        ("dataset_dict.json", '{"splits": []}', "does not list"),
    ],
)
def test_what_is_wrong_with_a_saved_dataset_is_named(tmp_path, name, content, sentence):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=sentence):
        splits(tmp_path)


def test_media_must_be_there_and_in_the_folder(tmp_path):
    inside, outside = tmp_path / "data", tmp_path / "secret.png"
    (inside / "pictures").mkdir(parents=True)
    (inside / "pictures/1.png").write_bytes(b"")
    outside.write_bytes(b"")
    (inside / "link.png").symlink_to(outside)
    check_media(
        Media(images=("pictures/1.png", str(inside / "pictures/1.png"), "https://a/b.png", "data:;base64,")), inside
    )
    for path, sentence in {
        "pictures/2.png": "the audio pictures/2.png is not in .*data.media_dir",
        "pictures": "is not in",
        "": "is not in",
        "../secret.png": "leads out of",
        str(outside): "leads out of",
        "link.png": "leads out of",
        "http://a/b.png": "begins with https://",
        "file:///etc/hostname": "begins with https://",
        "a\0b": "is not in",
        "x" * 5000: "is not in",
    }.items():
        with pytest.raises(ValueError, match=sentence):
            check_media(Media(audios=(path,)), inside)


def test_a_missing_image_is_named_with_its_row(tmp_path):
    turns = [{"role": "user", "content": "<image>what?"}, {"role": "assistant", "content": "a"}]
    file = tmp_path / "a.jsonl"
    file.write_text("\n".join(json.dumps({"messages": turns, "images": [f"{n}.png"]}) for n in (1, 2)))
    (tmp_path / "1.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"a.jsonl:2: .*the image 2.png is not in"):
        examples_of(Data(path="", eval_size=0.0), file)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/1.png").write_bytes(b"")
    (tmp_path / "elsewhere/2.png").write_bytes(b"")
    data = Data(path="", eval_size=0.0, media_dir=str(tmp_path / "elsewhere"))
    assert [example.media.images for example in examples_of(data, file)] == [("1.png",), ("2.png",)]


def test_rows_that_cannot_be_read_are_left_out_and_counted(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path / "home"))
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "a"}\n{"text": \n{"text": "b", "text": "c"}\n{"text": "d"}\n')
    data, said = Data(path=str(file), eval_size=0.0), []
    run = Run(model=Model(path=""), data=data, objective=Pretrain())
    with pytest.raises(DataError, match=r"a.jsonl:2: is not JSON.*data.on_bad_row=skip"):
        prepare(run, places(data, locate_data), tokenizer, print)
    lenient = replace(run, data=replace(data, on_bad_row="skip"))
    found = prepare(lenient, places(lenient.data, locate_data), tokenizer, said.append)
    assert [tokens.origin for tokens in found.sequences] == [f"{file}:1", f"{file}:4"]
    assert found.counts["rows left out: unreadable"] == 2
    assert said[-1].startswith(f"data: the first row left out: {file}:2: is not JSON")


def test_the_first_row_left_out_is_the_first_of_the_file(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path / "home"))
    file, said = tmp_path / "a.jsonl", []
    file.write_text('{"text": "a"}\n{"text": null}\nnull\n{"text": "d"}\n')
    run = Run(model=Model(path=""), data=Data(path=str(file), on_bad_row="skip"), objective=Pretrain())
    found = prepare(run, places(run.data, locate_data), tokenizer, said.append)
    assert found.counts["rows left out: unreadable"] == 2
    assert said[-1].startswith(f"data: the first row left out: {file}:2: cannot be read as text")
