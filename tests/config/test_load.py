"""A recipe and words become a record, or every mistake in them at once; what is dumped loads back."""

from dataclasses import replace

import pytest

from tunesmith.config.load import load, to_yaml
from tunesmith.data.formats.template import Template
from tunesmith.errors import RecipeError
from tunesmith.methods.freeze import Freeze
from tunesmith.methods.full import Full
from tunesmith.methods.lora import LoRA
from tunesmith.migrate import RENAMED
from tunesmith.run import Data, Run

GOOD = "model: {path: m}\ndata: {path: d}\n"


def mistakes(text="", words=(), recipe=None) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load(Run, recipe, words, text=text or None, renamed=RENAMED)
    return str(caught.value).split("\n")


@pytest.mark.parametrize(
    "words",
    [
        ["train.seed=7", "method.r=4"],
        ["--train.seed", "7", "--method.r", "4"],
        ["--train.seed=7", "--method.r=4"],
        ["train.seed=1", "method={name: lora, r: 4}", "train.seed=7"],
        ["method=lora", "method.r=4", "--train.seed=7"],
    ],
)
def test_words_override_text_in_every_spelling(words):
    run = load(Run, text=GOOD + "train: {seed: 3}\n", words=words).value
    assert (run.train.seed, run.method) == (7, LoRA(r=4))


def test_a_choice_made_anew_loses_the_options_of_the_old_one():
    text = GOOD + "method: {name: lora, r: 64}\n"
    assert load(Run, text=text, words=["method=full"]).value.method == Full()
    assert load(Run, text=text, words=["method=freeze", "method.num_layers=1"]).value.method == Freeze(num_layers=1)
    assert load(Run, text=text, words=["method=lora"]).value.method == LoRA(r=64)
    assert load(Run, text=text, words=["method=lora", "method.r=8", "method=full"]).value.method == Full()
    assert load(Run, text=text, words=["method.num_layers=1", "method=freeze"]).value.method == Freeze(num_layers=1)


def test_a_choice_deep_in_a_recipe_is_a_choice_as_well():
    text = "model: {path: m}\ndata:\n  path: d\n  format: template\n"
    loaded = load(Run, text=text, words=["data.format.prompt={text}"])
    assert loaded.value.data.format == Template(prompt="{text}")
    assert loaded.origins["data.format"] == "recipe:4"
    assert loaded.origins["data.format.prompt"] == "command line"


def test_an_option_has_no_origin_from_a_choice_that_was_left(tmp_path):
    (tmp_path / "base.yaml").write_text(GOOD + "method: {name: lora, r: 64}\n")
    (tmp_path / "mine.yaml").write_text("base: base.yaml\nmethod: freeze\n")
    loaded = load(Run, tmp_path / "mine.yaml", ["method=lora"])
    assert loaded.value.method == LoRA()
    assert loaded.origins["method.r"] == "default"


def test_a_later_word_adds_to_an_earlier_one_and_takes_nothing_else_away():
    run = load(Run, text=GOOD, words=["train.seed=1", "train={max_steps: 3}", "train={}"]).value
    assert (run.train.seed, run.train.max_steps) == (1, 3)


NASTY = [
    "yes",
    "on",
    "~",
    "null",
    "1e-4",
    "0o17",
    "2026-01-01",
    "1_000",
    "=",
    "<<",
    "# x",
    "a: b",
    "a # b",
    " a ",
    "- a",
]
NASTY += [
    "",
    "a\nb",
    "\n",
    "é 好 🎵",
    "\x85",
    "\u2028",
    "\t",
    "'\"",
    "*a",
    "&a",
    "!a",
    "%a",
    "@a",
    "---",
    "...",
    "x " * 50_000,
]


@pytest.mark.parametrize("text", NASTY, ids=lambda text: repr(text[:10]))
def test_any_text_that_is_dumped_loads_back(text):
    loaded = load(Run, text=GOOD)
    method = LoRA(target_modules=(text, text))
    run = replace(loaded.value, output=text, method=method, data=Data(path="d", format=Template(prompt=text)))
    assert load(Run, text=to_yaml(run, {"output": "r.yaml:3", "data.format.prompt": "command line"})).value == run


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["method=freeze", "objective.name=classify", "objective.label_smoothing=0.1"],
        ["data.format={name: template, prompt: \"a\\n\\n{text} # no\", answer: 'on'}", "train.report_to=[tensorboard]"],
        ["method.target_modules=[q_proj]", "train.learning_rate=1e-5", "eval.enabled=false", "output='2026'"],
    ],
)
def test_what_is_dumped_loads_back(words):
    loaded = load(Run, text=GOOD, words=words)
    again = load(Run, text=to_yaml(loaded.value, loaded.origins))
    assert again.value == loaded.value


def test_every_value_knows_where_it_came_from(tmp_path):
    (tmp_path / "base.yaml").write_text("model: {path: m}\nmethod: {name: lora, r: 16}\ntrain:\n  seed: 3\n")
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("base: base.yaml\ndata:\n  path: d\nmethod: {lora_alpha: 9}\n")
    loaded = load(Run, recipe, ["train.max_steps=4"])
    found = {key: place for key, place in loaded.origins.items() if place != "default"}
    assert found == {
        "model.path": f"{tmp_path / 'base.yaml'}:1",
        "method": f"{tmp_path / 'base.yaml'}:2",
        "method.r": f"{tmp_path / 'base.yaml'}:2",
        "train.seed": f"{tmp_path / 'base.yaml'}:4",
        "data.path": f"{recipe}:3",
        "method.lora_alpha": f"{recipe}:4",
        "train.max_steps": "command line",
    }
    assert loaded.value.method == LoRA(r=16, lora_alpha=9)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data.max_lenght=9"], "data.max_lenght: no such key; did you mean 'max_length'?"),
        (["method=lorra"], "method: no such method 'lorra'; did you mean 'lora'?"),
        (["method=lora", "method.rr=1"], "method.lora.rr: no such key; did you mean 'r'?"),
        (["method.r=0"], "method.lora.r: must be at least 1 (got 0)"),
        (["method.r=8.0"], "method.lora.r: must be a whole number of at least 1 (got 8.0)"),
        (["method.r=true"], "method.lora.r: must be a whole number of at least 1 (got true)"),
        (["method.target_modules=3"], "method.lora.target_modules: must be a list, each text, or text (got 3)"),
        (["train.learning_rate=-1"], "train.learning_rate: must be greater than 0 (got -1)"),
        (["train.learning_rate=.nan"], "train.learning_rate: must be a number greater than 0 (got nan)"),
        (["train.learning_rate='1e-4'"], "train.learning_rate: must be a number greater than 0 (got '1e-4')"),
        (["train.bf16=1"], "train.bf16: must be true or false (got 1)"),
        (["train.seed=null"], "train.seed: must be a whole number of at least 0 (got null)"),
        (["data.path=3"], "data.path: must be text (got 3)"),
        (["learning_rate=3"], "learning_rate: belongs under train: train.learning_rate"),
        (["batch_size=3"], "batch_size: is called train.per_device_train_batch_size here"),
        (["path=d"], "path: belongs under data or model: data.path or model.path"),
        (["method.num_layers=3"], "method.lora.num_layers: is an option of method=freeze"),
        (["method.r=8", "method=full"], "method.full.r: is an option of method=lora"),
        (["method.lora.r=3"], "method.lora.lora: is no key; the options of method=lora stand under method itself"),
        (["lora.r=8"], "lora: is called method here"),
        (["train=3"], "train: must be keys with values (got 3)"),
        (["train.report_to=[tensorbord]"], "did you mean 'tensorboard'?"),
        (["train.warmup_ratio=0.1"], "train.warmup_ratio: is called train.warmup_steps here"),
        (["lora_rank=8"], "lora_rank: is called method.r here"),
    ],
)
def test_a_mistake_is_named_and_mended(words, message):
    [said] = mistakes(GOOD, words)
    assert said.startswith("command line: ")
    assert message in said


def test_all_mistakes_come_at_once_each_with_its_line(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("model: {path: m}\nmethod:\n  name: lora\n  r: 0\ntrain:\n  sed: 1\n  weight_decay: x\n")
    assert set(mistakes(recipe=recipe, words=["eval.task=guess"])) == {
        f"{recipe}:4: method.lora.r: must be at least 1 (got 0)",
        f"{recipe}:6: train.sed: no such key; did you mean 'seed'?",
        f"{recipe}:7: train.weight_decay: must be a number of at least 0 (got 'x')",
        f"{recipe}: data: needed, but not given",
        "command line: eval.task: must be one of auto, choice, exact_match, loss (got 'guess')",
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["seed"], "'seed' is not understood"),
        (["=1"], "'=1' is not understood"),
        (["a..b=1"], "'a..b=1' is not understood"),
        (["--train.seed"], "needs a value"),
        (["--train.bf16", "--train.seed", "1"], "--train.bf16: needs a value"),
        (["a.b=[1"], "is not YAML"),
    ],
)
def test_a_word_that_is_no_setting_is_refused(words, message):
    assert message in mistakes(GOOD, words)[0]


def test_a_recipe_that_is_not_there_or_goes_in_a_circle_is_refused(tmp_path):
    assert "cannot be read" in mistakes(recipe=tmp_path / "no.yaml")[0]
    assert "cannot be read" in mistakes(recipe=tmp_path)[0]
    (tmp_path / "a.yaml").write_text("base: b.yaml\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\n")
    assert "is based on itself" in mistakes(recipe=tmp_path / "a.yaml")[0]
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe")
    assert "is not UTF-8" in mistakes(recipe=tmp_path / "bytes.yaml")[0]
    (tmp_path / "large.yaml").write_text("#" * 2**20 + "\n")
    assert "is larger than 1 MiB" in mistakes(recipe=tmp_path / "large.yaml")[0]


@pytest.mark.parametrize("base", ["no.yaml", '"a\\0b"', "''", "3"])
def test_a_base_that_cannot_be_read_is_named_where_it_is_asked_for(tmp_path, base):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(f"# mine\nbase: {base}\n")
    [said] = mistakes(recipe=recipe)
    assert said.startswith(f"{recipe}:2: base: ")


def test_a_mistake_is_placed_where_its_value_was_said_last(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("model: {path: m}\ndata:\n  max_length: 9\nmethod:\n  r: 8\n  name: lorra\n")
    said = mistakes(recipe=recipe, words=["method.lora_alpha=1", "data.max_length=8", "lora.r=8"])
    assert said[0] == f"{recipe}:2: data.path: needed, but not given"
    assert said[1].startswith(f"{recipe}:6: method: no such method 'lorra'")
    assert said[2].startswith("command line: lora: ")
