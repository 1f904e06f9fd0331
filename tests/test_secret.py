"""Secrets stand in no file, log, message or traceback; what holds data is open to its owner alone."""

import json
import os
import stat
import sys

import pytest
from training.test_resume import run_of

from tunesmith import train
from tunesmith.cli import main, trace
from tunesmith.cli.train import named
from tunesmith.errors import DataError, RecipeError
from tunesmith.files import private, write
from tunesmith.methods.lora import LoRA
from tunesmith.model import demo, hub
from tunesmith.objectives.sft import SFT
from tunesmith.runs import claim
from tunesmith.secret import holds_secret, masked

HUB = "hf_" + "aBcD" * 8
OTHER = "sk-proj-" + "a1" * 16
KEY = "0123456789abcdef0123"
ENVIRONMENT = {"HF_TOKEN": HUB, "WANDB_API_KEY": KEY, "DB_PASSWORD": "correct horse battery"}
SECRETS = [*ENVIRONMENT.values(), OTHER, "hunter2"]


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


def told(text):
    return [secret for secret in SECRETS if secret in text]


@pytest.mark.parametrize(
    "text",
    [
        f"a {HUB}.",
        f"key={OTHER}",
        f"x{KEY}y",
        "the correct horse battery staple",
        "https://me:hunter2@example.org/rows",
        "https://me:p@ss:hunter2@example.org/rows",
        "https://example.org/rows?a=1&access_token=hunter2hunter2",
        "ghp_" + "aB3" * 12,
        "AKIA" + "ABCD1234" * 2,
    ],
)
def test_a_secret_is_masked(text):
    assert "***" in masked(text) and not told(masked(text)) and holds_secret(text)


@pytest.mark.parametrize(
    "text",
    [
        "org/hf_model", "demo/movie-reviews", "https://example.org/a@b", "me@example.org",
        "a risk-averse sk-learn user",
        '<a href="https://example.org">me@example.org</a>', "model.path", "pad_token=<|im_end|>", "task-oriented",
        "modelscope:org/name", "/data/runs/quickstart-2", "0123456789abcdef", "",
    ],
)  # fmt: skip
def test_what_is_no_secret_stays(text):
    assert masked(text) == text and not holds_secret(text)


def test_a_run_whose_data_hold_secrets_shows_them_nowhere(model_folder, reviews, tmp_path, capsys):
    """The samples of run.json and of the report come from the data."""
    from dataclasses import replace

    from tunesmith.run import Eval
    from tunesmith.trackers.tensorboard import TensorBoard

    rows = [json.loads(line) for line in reviews.read_text().splitlines()]
    for n, row in enumerate(rows):
        row["text"] += f" {SECRETS[n % 4]}"
    reviews.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report_to = (TensorBoard(),)
    run = run_of(model_folder, reviews, tmp_path / "run", LoRA(r=4), SFT(), max_steps=2, report_to=report_to)
    train(replace(run, eval=Eval(max_new_tokens=2)))
    for file in (tmp_path / "run").rglob("*"):
        if file.is_file():
            assert not told(file.read_bytes().decode("utf-8", errors="replace")), file
    assert (
        "***" in (tmp_path / "run" / "run.json").read_text() and "***" in (tmp_path / "run" / "report.html").read_text()
    )
    said = capsys.readouterr()
    assert not told(said.out + said.err)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.path", "https://me:hunter2@example.org/rows.jsonl"),
        ("model.path", f"https://example.org/{HUB}"),
        ("data.eval_path", f"rows-{OTHER}.jsonl"),
        ("output", f"runs/{KEY}"),
        ("method.target_modules", f"[q_proj, {HUB}]"),
    ],
)
def test_a_recipe_that_holds_a_secret_is_refused_before_anything_is_written(key, value, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = {"model.path": "a", "data.path": "b"} | {key: value}
    with pytest.raises(SystemExit) as left:
        main(["train", *[f"{name}={said}" for name, said in settings.items()]])
    said = capsys.readouterr().err
    assert left.value.code == 2 and f"{key}: holds a password or a token" in said
    assert not told(said) and list(tmp_path.iterdir()) == []


def test_other_commands_and_mistakes_do_not_repeat_a_secret(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(f"model: {{path: a}}\ndata: {{path: b}}\ntrain: {{seed: {OTHER}}}\n")
    for words in (
        ["train", str(recipe)],
        ["train", OTHER],
        ["train", "--resume", OTHER],
        ["init", "--data", "https://me:hunter2@example.org/rows.jsonl"],
        ["data", "preview", str(recipe), f"train.seed={OTHER}"],
    ):
        with pytest.raises(SystemExit) as left:
            main(words)
        said = capsys.readouterr()
        assert left.value.code and "***" in said.err and not told(said.out + said.err)


def test_an_error_of_others_is_masked_in_message_run_and_traceback(
    model_folder, reviews, tmp_path, monkeypatch, capsys
):
    from tunesmith.training.loop import Loop

    def odd(self, number):
        raise ConnectionError(f"401 for https://me:hunter2@example.org with {HUB} and {KEY}")

    monkeypatch.setattr(Loop, "gradient", odd)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    words = [f"model.path={model_folder}", f"data.path={reviews}", "objective=classify", "eval.enabled=false"]
    words = ["train", *words, f"output={tmp_path / 'run'}"]
    with pytest.raises(SystemExit):
        main(words)
    said = capsys.readouterr().err
    assert "ConnectionError: 401 for https://***@example.org with *** and ***" in said and not told(said)
    assert "***@example.org" in (tmp_path / "run" / "run.json").read_text()
    assert not told((tmp_path / "run" / "run.json").read_text())
    with pytest.raises(ConnectionError) as error:
        main([*words[:-1], f"output={tmp_path / 'other'}", "--debug"])
    assert sys.excepthook is trace
    trace(error.type, error.value, error.tb)
    said = capsys.readouterr().err
    assert "Traceback" in said and "***@example.org" in said and not told(said)


def test_a_refusal_never_holds_a_secret():
    assert str(DataError(f"rows of {HUB}")) == "rows of ***"


def test_a_written_file_never_holds_a_secret(tmp_path):
    write(tmp_path / "a.json", json.dumps({"a": HUB, "b": "https://me:hunter2@h", "c": "x"}))
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": "***", "b": "https://***@h", "c": "x"}


# --- folders ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def open_handed():
    """A umask that takes nothing away."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_run_folder_is_its_owners_alone(model_folder, reviews, tmp_path, open_handed):
    train(run_of(model_folder, reviews, tmp_path / "all" / "run", LoRA(r=4), SFT(), max_steps=1), quiet=True)
    assert mode(tmp_path / "all" / "run") == 0o700


def test_a_folder_that_is_there_already_keeps_its_mode(tmp_path, open_handed):
    (tmp_path / "shared").mkdir(0o750)
    private(tmp_path / "shared")
    assert mode(tmp_path / "shared") == 0o750


def test_the_cache_is_its_owners_alone(tmp_path, monkeypatch, open_handed):
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path / "home"))
    entry = demo.Demo(requirement="a==1", sha256="0", make=print, download=1, disk=1, licence="none")
    monkeypatch.setitem(demo.DATA, "demo/a", entry)
    monkeypatch.setattr(demo, "build", lambda name, entry, folder: (folder / "train.jsonl").write_text("{}"))
    assert hub.locate_data("demo/a").is_dir()
    assert mode(tmp_path / "home") == 0o700


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["../elsewhere", "/tmp/a", "a/b", "..", ".a", "", "a b", "a;rm -rf", "$(id)", "a\nb", "-a"]
)
def test_the_name_of_a_run_is_a_name(name, model_folder, reviews, tmp_path, monkeypatch):
    from dataclasses import replace

    monkeypatch.chdir(tmp_path)
    run = replace(run_of(model_folder, reviews, "", LoRA(), SFT()), output=None)
    with pytest.raises(RecipeError, match="cannot name a run: use letters"):
        train(run, name=name, quiet=True)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("recipe", "name"),
    [
        ("recipes/quickstart.yaml", "quickstart"), ("my recipe (1).yaml", "my-recipe-1"), 
        ("a;rm -rf ~.yaml", "a-rm--rf"),
        ("...yaml", "run"), ("试验.v2.yaml", "试验.v2"), ("", "run"),
    ],
)  # fmt: skip
def test_a_run_is_named_after_its_recipe(recipe, name, tmp_path, monkeypatch):
    from tunesmith.run import Data, Model, Run

    monkeypatch.chdir(tmp_path)
    assert named(recipe) == name
    with claim(Run(model=Model(path="a"), data=Data(path="b")), named(recipe), print) as folder:
        assert folder.path.name == name
