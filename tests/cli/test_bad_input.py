"""Bad input gets one clear sentence and its exit code; nothing half-written, no traceback."""

import json
import re
import shutil
from types import SimpleNamespace

import pytest

from tunesmith.cli import main


@pytest.fixture
def recipe(tmp_path, model_folder, reviews):
    """Write a recipe of the tiny model and the reviews, changed as asked; its path."""

    def write(**changes):
        tree = {
            "model": {"path": str(model_folder)},
            "data": {"path": str(reviews), "format": {"name": "template", "prompt": "judge: {text}"}},
            "train": {"max_steps": 2, "learning_rate": 0.01},
            "eval": {"enabled": False},
            "output": str(tmp_path / "run"),
        }
        for path, value in changes.items():
            room, key = path.split("__")
            tree[room][key] = value
        file = tmp_path / "recipe.yaml"
        file.write_text(json.dumps(tree, indent=1))  # JSON is YAML
        return str(file)

    return write


def run(capsys, *words) -> tuple[int, str]:
    with pytest.raises(SystemExit) as left:
        main([*map(str, words)])
    return left.value.code or 0, capsys.readouterr().err


def refused(capsys, code, sentence, *words) -> None:
    left, said = run(capsys, *words)
    said = re.sub(r"(reviews.jsonl):\d+", r"\1", said)  # which rows are held out is a matter of their hash
    assert sentence in said
    assert "Traceback" not in said
    assert left == code


def test_a_good_recipe_trains(recipe, tmp_path, capsys):
    assert run(capsys, "train", recipe(), "--json")[0] == 0
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize(
    ("changes", "code", "sentence"),
    [
        (
            {"train__learnin_rate": 1},
            2,
            "recipe.yaml:15: train.learnin_rate: no such key; did you mean 'learning_rate'?",
        ),
        ({"train__max_steps": "four"}, 2, "train.max_steps: must be a whole number"),
        ({"train__warmup_ratio": 0.1}, 2, "train.warmup_ratio: is called train.warmup_steps here"),
        ({"train__fp16": True}, 2, "train.fp16: float16 needs a GPU"),
        ({"model__path": "/no/such/model"}, 2, "/no/such/model"),
        ({"data__path": "/no/such/rows.jsonl"}, 3, "/no/such/rows.jsonl"),
        (
            {"data__format": "alpaca"},
            3,
            "reviews.jsonl: cannot be read as alpaca: needs the column instruction, output",
        ),
        ({"data__max_length": 8}, 3, "reviews.jsonl: the answer lies past data.max_length=8"),
        ({"data__format": "labelled"}, 3, "reviews.jsonl: has no answer; objective sft learns answers"),
    ],
)
def test_a_mistake_is_one_sentence_with_its_code(recipe, capsys, tmp_path, changes, code, sentence):
    refused(capsys, code, sentence, "train", recipe(**changes))
    assert not (tmp_path / "run").exists()


def test_held_out_rows_that_are_trained_on_stop_a_run(recipe, capsys, reviews, tmp_path):
    part = tmp_path / "part.jsonl"
    part.write_text("".join(reviews.read_text().splitlines(keepends=True)[:3]))
    found = "leakage: 3 rows that are trained on are held out too"
    refused(capsys, 3, found, "train", recipe(data__eval_path=str(part)))
    assert not (tmp_path / "run").exists()
    assert run(capsys, "train", recipe(data__eval_path=str(part), data__on_lint="warn"))[0] == 0


def test_all_mistakes_are_named_at_once(recipe, capsys):
    _, said = run(capsys, "train", recipe(train__learning_rate=-1), "data.max_lenght=3", "--method.r", "0")
    assert "train.learning_rate: must be greater than 0 (got -1)" in said
    assert "data.max_lenght: no such key; did you mean 'max_length'?" in said
    assert "method.lora.r: must be at least 1 (got 0)" in said


def test_a_missing_recipe_is_named(capsys, tmp_path):
    refused(capsys, 2, "nowhere.yaml", "train", tmp_path / "nowhere.yaml")


def test_empty_data_is_refused(recipe, capsys, reviews):
    reviews.write_text("")
    refused(capsys, 3, "reviews.jsonl: holds no rows", "train", recipe())


def test_a_folder_without_weights_is_refused(recipe, capsys, model_folder):
    (model_folder / "model.safetensors").unlink()
    refused(capsys, 2, str(model_folder), "train", recipe())


def test_a_model_that_needs_code_of_its_own_is_refused(recipe, capsys, model_folder, tmp_path):
    config = model_folder / "config.json"
    config.write_text(json.dumps({"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}))
    refused(capsys, 2, "config.json: auto_map: the model needs code that comes with it", "train", recipe())
    assert not (tmp_path / "run").exists()


def test_a_chat_template_without_end_is_refused(recipe, capsys, model_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("tunesmith.data.rendering.chat_template.SECONDS", 0.1)
    endless = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    (model_folder / "chat_template.jinja").write_text(endless)
    refused(capsys, 3, "the chat template of tiny takes longer than 0.1 s for one dialogue", "train", recipe())
    assert not (tmp_path / "run").exists()


def test_damaged_weights_are_refused(recipe, capsys, model_folder):
    weights = model_folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    refused(capsys, 2, "model.safetensors: is cut short or damaged", "train", recipe())


def test_memory_that_runs_out_says_what_to_do(recipe, capsys, monkeypatch, tmp_path):
    from tunesmith.training.loop import Loop

    def full(self, number):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(Loop, "gradient", full)
    refused(capsys, 4, "out of memory: make a batch smaller", "train", recipe())
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "outofmemory"


def test_a_full_disk_is_said(recipe, capsys, monkeypatch):
    from tunesmith.training import checkpoint

    usage = shutil.disk_usage
    no_room = SimpleNamespace(disk_usage=lambda folder: usage(folder)._replace(free=10))
    monkeypatch.setattr(checkpoint, "shutil", no_room)
    refused(capsys, 6, "3 times in a row", "train", recipe(), "train.max_steps=4", "train.save_steps=1")


def test_a_tokenizer_without_a_template_says_which_is_used(recipe, capsys, model_folder, tokenizer):
    (model_folder / "chat_template.jinja").unlink()
    code, said = run(capsys, "train", recipe())
    assert "brings no chat template: a plain one is used" in said
    assert code == 0


def test_an_unforeseen_error_is_a_sentence_too_unless_debug_is_asked(recipe, capsys, monkeypatch, tmp_path):
    from tunesmith.training.loop import Loop

    def odd(self, number):
        raise KeyError("odd")

    monkeypatch.setattr(Loop, "gradient", odd)
    refused(capsys, 1, "KeyError: 'odd'; `--debug` shows where", "train", recipe())
    with pytest.raises(KeyError):
        main(["train", recipe(), f"output={tmp_path / 'other'}", "--debug"])


@pytest.mark.parametrize("words", [["chat"], ["eval"], ["runs", "show"], ["train", "--resume"]])
def test_a_folder_that_is_no_run_is_refused(capsys, tmp_path, words):
    refused(capsys, 7, "is no run folder", *words, tmp_path)


def test_safetensors_own_words_for_a_full_disk_are_known():
    """Not provoked by a mount here, which would need root: the words are those of safetensors 0.8."""
    from tunesmith.files import full

    assert full(RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"))
    assert not full(RuntimeError("Error while serializing: I/O error: permission denied (os error 13)"))
