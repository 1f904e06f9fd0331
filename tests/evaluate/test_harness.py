"""lm-eval asks our model as any other: whatever it learnt with, the figures are those of our own scoring."""

import json
from importlib.util import find_spec

import pytest
import torch
from conftest import make_tiny
from training.test_resume import run_of

from tunesmith.cli import main
from tunesmith.data.rendering.render import Renderer
from tunesmith.errors import RecipeError
from tunesmith.evaluate.harness_tasks import tasks_of
from tunesmith.methods.base import method
from tunesmith.methods.lora import LoRA
from tunesmith.model.engine import Engine
from tunesmith.model.load import attach
from tunesmith.objectives.sft import SFT
from tunesmith.run import Data
from tunesmith.runs import RunFolder
from tunesmith.training.train import train

needed = pytest.mark.skipif(find_spec("lm_eval") is None, reason="an extra: pip install 'tunesmith[harness]'")
WORDS = ["warm", "dull", "funny and warm", "lifeless", "a mess", "good", "of two friends"]
CHOICES = [" positive", " negative"]
COMMON = """
dataset_path: json
dataset_kwargs: {data_files: {test: rows.jsonl}}
test_split: test
doc_to_text: "the film is {{word}}:"
"""
TASK = """
include: common.txt
task: warm
output_type: multiple_choice
target_delimiter: ""
doc_to_choice: [" positive", " negative"]
doc_to_target: label
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""


@pytest.fixture
def folder(tmp_path):
    """A task over seven rows, in two files."""
    place = tmp_path / "tasks"
    place.mkdir()
    rows = [{"word": word, "label": n % 2} for n, word in enumerate(WORDS)]
    (place / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (place / "common.txt").write_text(COMMON)
    (place / "warm.yaml").write_text(TASK)
    return place


@needed
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["full", "lora", "prompt_tuning", "prefix_tuning", "bottleneck"])
def test_what_it_scores_and_writes_is_what_we_score_and_write(name, tokenizer):
    from lm_eval.api.instance import Instance

    from tunesmith.evaluate.harness import asked_by

    model = attach(make_tiny(), method[name](), ()).eval()
    torch.manual_seed(1)
    for weight in model.parameters():
        if weight.requires_grad and name != "full":
            weight.data.normal_(0, 0.3)
    engine, texts = Engine(model, tokenizer), [f"the film is {word}:" for word in WORDS]
    asked = asked_by(engine, Renderer(tokenizer, Data(path="none")), 3)
    pairs = [(text, choice) for text in texts for choice in CHOICES]
    got = asked.loglikelihood([Instance("loglikelihood", {}, pair, n) for n, pair in enumerate(pairs)], True)
    prompts, options = [tokenizer.encode(text) for text in texts], [tokenizer.encode(one) for one in CHOICES]
    right = engine.rank(prompts, [options] * len(prompts))
    assert torch.tensor([one for one, _ in got]).view(-1, 2) == pytest.approx(right, rel=1e-4)
    how = {"until": ["e"], "max_gen_toks": 6, "do_sample": False}
    said = asked.generate_until([Instance("generate_until", {}, (text, how), n) for n, text in enumerate(texts)], True)
    assert said == [text.partition("e")[0] for text in engine.write(prompts, 6)]


def tell(*words):
    with pytest.raises(SystemExit) as left:
        main([*words])
    assert not left.value.code


@needed
@pytest.mark.filterwarnings("ignore")
def test_a_run_is_asked_a_task_of_a_file_and_keeps_what_it_came_to(
    model_folder, reviews, folder, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    train(run_of(model_folder, reviews, tmp_path / "run", LoRA(r=4), SFT()), quiet=True)
    tell("eval", str(tmp_path / "run"), "--harness", str(folder), "--batch-size", "3", "--json")
    told = json.loads(capsys.readouterr().out)
    assert told == RunFolder(tmp_path / "run").facts["harness"]
    [result] = told["warm"]["results"]
    from tunesmith.tuned import load_run

    tuned = load_run(tmp_path / "run")
    prompts = [tuned.tokenizer.encode(f"the film is {word}:") for word in WORDS]
    ranks = Engine(tuned.model, tuned.tokenizer).rank(prompts, [list(map(tuned.tokenizer.encode, CHOICES))] * 7)
    right = [int(chosen) == n % 2 for n, chosen in enumerate(ranks.argmax(-1))]
    share = sum(right) / 7
    assert (result["measure"], result["value"], result["rows"]) == ("acc", pytest.approx(share), 7)
    assert result["stderr"] == pytest.approx((share * (1 - share) / 6) ** 0.5)
    low, high = result["interval"]
    assert low <= share <= high and told["warm"]["lm_eval"]
    tell("eval", str(model_folder), "--harness", str(folder / "warm.yaml"), "--limit", "3", "--chat")
    page = capsys.readouterr().out
    assert "warm" in page and " 3 " in page and "its first 3 rows" in page


@needed
@pytest.mark.filterwarnings("ignore")
def test_tasks_run_no_code_and_mistakes_are_named(folder):
    task = folder / "warm.yaml"
    for was, now, said in (
        ("doc_to_target: label", "doc_to_target: !function os.getcwd", "warm.yaml:7: the tag !function is not allowed"),
        ("include: common.txt", "include: common.txt\nclass: x.y", "the key class is not taken"),
        ("metric: acc,", "metric: somebody/metric,", "somebody/metric is no metric of lm-eval"),
        ("doc_to_target: label", 'doc_to_target: "{{ word.__class__.__mro__ }}"', "SecurityError"),
        ("doc_to_target: label", 'doc_to_target: "{{ wrod }}"', "UndefinedError: 'wrod' is undefined"),
        ("task: warm", "name: warm", "has no YAML file with the key task"),
        ("include: common.txt", "dataset_path: pickle", "dataset_path: must be csv, json"),
        ("include: common.txt", "include: warm.yaml", "includes itself"),
        ("include: common.txt", COMMON.replace("rows", "no"), "data_files: no.jsonl is not there"),
    ):
        task.write_text(TASK.replace(was, now))
        with pytest.raises(RecipeError, match=r"--harness: |warm.yaml:") as raised:
            tasks_of([str(folder)])
        assert said in str(raised.value), raised.value


def test_options_of_tasks_go_with_tasks_and_a_missing_package_is_named(tmp_path, capsys):
    wrong = [([], "--limit: goes with --harness")]
    if find_spec("lm_eval") is None:
        wrong.append((["--harness", "arc_easy"], "needs the package lm-eval; pip install 'tunesmith[harness]'"))
    for more, said in wrong:
        with pytest.raises(SystemExit):
            main(["eval", str(tmp_path), "--limit", "2", *more])
        assert said in capsys.readouterr().err
