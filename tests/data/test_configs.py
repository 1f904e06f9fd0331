"""A dataset's README.md says which files are which config and split; they are read as `datasets` reads them."""

import json

import pytest

from tunesmith.data.reading.configs import chosen
from tunesmith.data.reading.dataset_info import named
from tunesmith.data.reading.places import places
from tunesmith.data.reading.source import read
from tunesmith.errors import DataError, RecipeError
from tunesmith.model.hub import locate_data
from tunesmith.run import Data

FILES = [
    "en/train-0.jsonl", "en/train-1.jsonl", "en/test-0.jsonl", "de/all.jsonl", "zh/a/rows.jsonl", "sft/one.jsonl",
    "sft/two.jsonl", "gen/one.jsonl", "gen/two.jsonl",
]  # fmt: skip
README = """---
license: mit
configs:
- config_name: en
  data_files:
  - split: train
    path: en/train-*.jsonl
  - split: test
    path: [en/test-0.jsonl]
- config_name: de
  data_files: de/*.jsonl
- config_name: zh
  data_dir: zh
  data_files: "**/*.jsonl"
- config_name: chat
  data_files:
  - {split: train_sft, path: sft/one.jsonl}
  - {split: test_sft, path: sft/two.jsonl}
  - {split: train_gen, path: gen/one.jsonl}
  - {split: test_gen, path: gen/two.jsonl}
---
# Rows
---
configs: none
"""


@pytest.fixture
def folder(tmp_path):
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps({"text": name}) + "\n")
    (tmp_path / "README.md").write_text(README)
    return tmp_path


def names(found):
    return {split: [row.values["text"] for row in read(files)] for split, files in found.items()}


WANTED = [
    ("en", None, {"train": ["en/train-0.jsonl", "en/train-1.jsonl"], "test": ["en/test-0.jsonl"]}),
    ("en", "test", {"train": ["en/test-0.jsonl"]}),
    ("de", None, {"train": ["de/all.jsonl"]}),
    ("zh", None, {"train": ["zh/a/rows.jsonl"]}),
    ("chat", "train_sft", {"train": ["sft/one.jsonl"], "test": ["sft/two.jsonl"]}),
    ("chat", "train_gen", {"train": ["gen/one.jsonl"], "test": ["gen/two.jsonl"]}),
]


@pytest.mark.parametrize(("name", "split", "wanted"), WANTED)
def test_a_config_has_the_files_that_the_readme_says(folder, name, split, wanted):
    """As `datasets` 5.2 finds them, which is no part of what Tunesmith needs and so is not asked here."""
    assert names(chosen(folder, name, split)) == wanted
    [place] = places(Data(path=str(folder), subset=name, split=split), locate_data)
    assert names(place.files) == wanted


def test_one_config_or_a_usual_one_need_not_be_named(folder):
    def written(configs):
        (folder / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
        return names(chosen(folder))["train"]

    assert written("- config_name: x\n  data_files: de/all.jsonl\n") == ["de/all.jsonl"]
    two = "- config_name: x\n  data_files: de/all.jsonl\n- config_name: {}\n  data_files: sft/one.jsonl\n{}"
    assert written(two.format("default", "")) == ["sft/one.jsonl"]
    assert written(two.format("y", "  default: true\n")) == ["sft/one.jsonl"]


def test_a_folder_that_lists_no_configs_is_read_as_before(folder):
    (folder / "README.md").write_text("---\nlicense: mit\n---\nconfigs:\n- config_name: x\n")
    assert names(chosen(folder / "en", split="test")) == {"train": ["en/test-0.jsonl"]}
    assert "test" in chosen(folder)
    with pytest.raises(RecipeError, match=r"data.subset: .* has no README.md that lists configs"):
        chosen(folder, "en")


@pytest.mark.parametrize(
    ("name", "split", "sentence"),
    [
        (None, None, "choose a config with data.subset; it has en, de, zh, chat$"),
        ("english", None, "choose a config with data.subset; it has en, de, zh, chat, and no 'english'"),
        ("chat", None, "choose a split to train on with data.split; it has train_sft, test_sft, train_gen, test_gen"),
        ("en", "validation", "choose a split to train on with data.split; it has train, test"),
    ],
)
def test_what_must_be_chosen_is_said(folder, name, split, sentence):
    with pytest.raises(DataError, match=sentence):
        chosen(folder, name, split)


@pytest.mark.parametrize(
    ("configs", "sentence"),
    [
        ("- config_name: x\n  data_files: gone.jsonl\n", "says 'gone.jsonl' of the config x, and no file of rows"),
        ("- config_name: x\n  data_dir: gone\n", "says 'gone' of the config x, and no folder"),
        ("- config_name: x\n  data_files: ../*.jsonl\n", "which leads out of the folder"),
        ("- config_name: x\n  data_files: /etc/*\n", "which leads out of the folder"),
        ("- config_name: x\n  data_files: link.jsonl\n", r"link.jsonl: leads out of .*, to .*secret.jsonl"),
        (" a: b\n", "README.md: 'configs' must be a list"),
        ("- config_name: x\n  data_files: {train: a}\n", "data_files of the config x must be a pattern"),
        ("- config_name: [\n", r"README.md:\d+: is not YAML"),
    ],
)
def test_what_is_wrong_with_a_readme_is_named(folder, tmp_path_factory, configs, sentence):
    outside = tmp_path_factory.mktemp("outside") / "secret.jsonl"
    outside.write_text("{}\n")
    (folder / "link.jsonl").symlink_to(outside)
    (folder / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    with pytest.raises(DataError, match=sentence):
        chosen(folder, "x")


def test_a_subset_of_a_hub_s_dataset_is_a_config_of_its_readme(folder, tmp_path_factory):
    where = tmp_path_factory.mktemp("info")
    entry = {"hf_hub_url": "a/b", "subset": "chat", "split": "train_gen", "columns": {"prompt": "text"}}
    (where / "dataset_info.json").write_text(json.dumps({"rows": entry}))
    found = named(where / "rows", lambda name: folder)
    assert found is not None and names(found.files) == {"train": ["gen/one.jsonl"]}
