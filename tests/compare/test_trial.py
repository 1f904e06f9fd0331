"""A trial: a rate that learns is found, within the budget, and what is noise is called noise."""

import json

import pytest

from tunesmith.cli import main
from tunesmith.compare.budget import Budget, Spent
from tunesmith.compare.outcome import Outcome, Setting, Tried
from tunesmith.compare.trial import Space
from tunesmith.config.load import load
from tunesmith.plan.advise import advise, circumstances
from tunesmith.run import Run


def ask(capsys, *words, code=0):
    with pytest.raises(SystemExit) as left:
        main([*map(str, words)])
    said = capsys.readouterr()
    assert (left.value.code or 0) == code, said.err
    return said


def test_a_trial_finds_a_rate_that_learns_and_writes_it(model_folder, reviews, tmp_path, capsys):
    pytest.importorskip("optuna")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"# mine\nmodel: {{path: {model_folder}}}\n"
        f"data: {{path: {reviews}, format: {{name: template, prompt: 'judge: {{text}}', answer: '{{label}}'}}}}\n"
        "method: {name: lora, r: 8}\ntrain: {learning_rate: 1e-7, per_device_train_batch_size: 4}\n"
    )
    ask(capsys, "advise", recipe, "--trial", code=2)
    assert "--trial: name what it may use" in ask(capsys, "advise", recipe, "--trial", code=2).err
    assert "add --trial" in ask(capsys, "advise", recipe, "--budget", "9steps", code=2).err
    words = ["advise", recipe, "--trial", "--seeds", 2, "--out", tmp_path / "out", "--json"]
    assert "takes at least 63 steps" in ask(capsys, *words, "--budget", "60steps", code=2).err
    before = recipe.read_text()
    found = json.loads(ask(capsys, *words, "--budget", "63steps").out)
    assert recipe.read_text() == before
    assert found["spent"]["steps"] <= 63 and found["winner"]["rate"] > 1e-5
    own = next(one for one in found["settings"] if one["learning_rate"] == 1e-7)
    best = next(one for one in found["settings"] if one["learning_rate"] == found["winner"]["rate"])
    assert own["losses"].keys() == {"1", "3", "9"} and best["losses"]["9"] < own["losses"]["9"]
    assert any("noise floor" in said for said in found["said"]) and (tmp_path / "out/trial.md").stat().st_size > 300
    runs = {file: file.stat().st_mtime_ns for file in (tmp_path / "out/runs").glob("*/metrics.jsonl")}
    again = json.loads(ask(capsys, *words, "--budget", "63steps", "--apply").out)
    assert again["settings"] == found["settings"] and again["spent"]["steps"] == found["spent"]["steps"]
    assert all(file.stat().st_mtime_ns == at for file, at in runs.items())
    made = load(Run, recipe)
    assert made.value.train.learning_rate == found["winner"]["rate"] and "# mine" in recipe.read_text()
    assert made.origins["train.learning_rate"].startswith("advisor")


def outcome(own, best, **more):
    one = Tried(Setting(1e-3, 8), {9: own[0]}, own[1:])
    other = Tried(Setting(3e-3, 8), {9: best[0]}, best[1:])
    return Outcome((one, other), other if best[0] < own[0] else one, one, (1, 3, 9), Spent(81), Budget("steps", 90))


def test_what_may_be_noise_wins_nothing():
    close = outcome([0.50, 0.52, 0.48], [0.47, 0.51, 0.49])
    assert close.winner is None and "no setting is better than the recipe's own by more than noise" in close.sentences()
    assert "no more than noise" in dict((one.setting.rate, said) for one, said in close.rows)[3e-3]
    clear = outcome([0.50, 0.52, 0.48], [0.30, 0.31, 0.29])
    assert clear.winner is clear.best and clear.loss(clear.best) == pytest.approx(0.30)
    assert clear.noise == (pytest.approx(((0.0008 + 0.0002) / 4) ** 0.5), 4)
    lucky = outcome([0.50, 0.51, 0.49], [0.30, 0.50, 0.51])  # a first seed that won by chance is not counted
    assert lucky.winner is None
    assert outcome([0.40, 0.42, 0.41], [0.50]).winner is None


def test_a_space_is_what_the_advisor_has_nothing_against_and_the_recipes_own():
    def space(*words):
        run = load(Run, None, ["model.path=m", "data.path=d", *words]).value
        return Space.of(run, advise(run, {}, circumstances(run, 1e8, 500)))

    lora = space("train.learning_rate=0.01", "method.r=12")
    assert (lora.low, lora.high, lora.own) == (1e-4, 2e-3, Setting(0.01, 12))
    assert lora.ranks == (8, 12, 16, 32, 64, 128) and lora.wise == Setting(5e-4, 16)
    full = space("method=full", "train.learning_rate=1e-5")
    assert lora.params(lora.own) == {"rate": 2e-3, "rank": 12}
    assert full.ranks == () and full.wise.rank is None and full.low <= 1e-5 <= full.high
