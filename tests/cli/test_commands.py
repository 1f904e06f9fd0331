"""The commands around training: look at data, write a recipe, list and compare runs, talk to a result."""

import io
import json

import pytest

from tunesmith.cli import main


@pytest.fixture
def ask(capsys):
    """Run a command that succeeds; what it printed."""

    def run(*words) -> str:
        with pytest.raises(SystemExit) as left:
            main([*map(str, words)])
        said = capsys.readouterr()
        assert not left.value.code, said.err
        return said.out

    return run


@pytest.fixture
def trained(ask, model_folder, reviews, tmp_path):
    """A run by the command line; its folder and what it printed."""
    words = [
        f"model.path={model_folder}", f"data.path={reviews}", f"output={tmp_path / 'run'}", "eval.max_new_tokens=4",
        "data.format.name=template", "data.format.prompt=judge: {text}",
        "--train.num_train_epochs", "4", "--train.learning_rate=2e-2",
    ]  # fmt: skip
    return tmp_path / "run", json.loads(ask("train", *words, "--json"))


def test_training_prints_the_promised_object(trained):
    folder, result = trained
    assert result.keys() == {"before", "after", "train_seconds", "tokens_per_second", "peak_memory_mb", "run"}
    for side in ("before", "after"):
        assert {"accuracy", "interval", "n", "macro_f1", "loss"} <= result[side].keys()
        low, high = result[side]["interval"]
        assert 0 <= low <= result[side]["accuracy"] <= high <= 1
    assert result["after"]["loss"] < result["before"]["loss"]
    assert result["run"] == str(folder)
    for name in (
        "report.html",
        "loss.png",
        "recipe.yaml",
        "run.json",
        "manifest.json",
        "metrics.jsonl",
        "adapter/adapter_model.safetensors",
    ):
        assert (folder / name).is_file(), name


def test_measuring_again_finds_the_same(trained, ask):
    folder, result = trained
    again = json.loads(ask("eval", folder, "--json"))
    assert again["accuracy"] == result["after"]["accuracy"]
    assert again["loss"] == pytest.approx(result["after"]["loss"], abs=1e-5)


def test_chat_works_in_a_pipe_and_switches_sides(trained, ask, monkeypatch):
    folder, _ = trained
    monkeypatch.setattr(
        "sys.stdin", io.StringIO("judge: the film is warm 3\n/base\njudge: the film is warm 3\n/nope\n")
    )
    tuned, base, fault = ask("chat", folder, "--max-new-tokens", 4).splitlines()
    assert tuned in ("positive", "negative")
    assert base not in ("positive", "negative")
    assert "no such command: /nope" in fault


def test_runs_are_listed_shown_and_compared(trained, ask, tmp_path, model_folder, reviews):
    folder, _ = trained
    [row] = json.loads(ask("runs", "list", tmp_path, "--json"))
    assert (row["run"], row["status"]) == (str(folder), "finished")
    assert "learning_rate: 0.02 # command line" in ask("runs", "show", folder)
    ask("train", folder / "recipe.yaml", f"output={tmp_path / 'other'}", "method.r=2", "eval.enabled=false", "--json")
    differences = json.loads(ask("runs", "diff", folder, tmp_path / "other", "--json"))
    assert differences["method.r"] == [8, 2]
    assert "train.learning_rate" not in differences


def test_a_preview_marks_just_the_answer(ask, tmp_path, model_folder, reviews):
    words = [f"model.path={model_folder}", f"data.path={reviews}", "data.format.name=template"]
    empty = tmp_path / "empty.yaml"
    empty.write_text("")
    shown = ask("data", "preview", empty, *words, "-n", 1)
    assert "⟦positive<|im_end|>⟧" in shown
    [sample] = json.loads(ask("data", "preview", empty, *words, "-n", 1, "--json"))
    assert "".join(one["text"] for one in sample["pieces"] if one["state"] == "trained") == "positive<|im_end|>"


@pytest.mark.parametrize("goal", ["sft", "classify"])
def test_the_recipe_that_init_writes_trains(ask, tmp_path, model_folder, reviews, goal):
    file = tmp_path / "mine.yaml"
    ask("init", "--model", model_folder, "--data", reviews, "--goal", goal, "-o", file)
    assert "# Rank of the update" in file.read_text()
    result = json.loads(ask("train", file, "train.max_steps=1", f"output={tmp_path / 'run'}", "--json"))
    assert result["after"]["n"] > 0


def test_the_schema_is_one_and_the_recipe_of_a_run_fits_it(ask, trained):
    import jsonschema
    from ruamel.yaml import YAML

    folder, _ = trained
    schema = json.loads(ask("schema"))
    jsonschema.validate(YAML(typ="safe").load(folder / "recipe.yaml"), schema)
    assert schema["properties"]["train"]


def test_the_version_is_told(ask):
    assert json.loads(ask("version", "--json"))["torch"].startswith("2.")
