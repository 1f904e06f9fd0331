"""Methods held against each other: the same rows for each, and no difference called one that may be chance."""

import json

import pytest

from tunesmith.cli import main
from tunesmith.compare.contest import Entrant, heats
from tunesmith.compare.figures import Row, judged, row
from tunesmith.compare.page import cells, page, picture
from tunesmith.errors import RecipeError


@pytest.fixture
def recipe(model_folder, reviews, tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(
        f"model: {{path: {model_folder}}}\n"
        f"data: {{path: {reviews}, eval_size: 0.3,"
        " format: {name: template, prompt: 'judge: {text}', answer: '{label}'}}\n"
        "method: {name: lora, r: 4}\ntrain: {learning_rate: 1e-3, max_steps: 3, per_device_train_batch_size: 4}\n"
    )
    return file


def test_runs_are_of_each_method_with_each_seed_at_a_rate_that_suits_it(recipe, tmp_path):
    entrants = [Entrant("full"), Entrant("lora r=16"), Entrant("full train.learning_rate=1e-3")]
    found = heats(recipe, ["train.max_steps=2"], entrants, (1, 2), tmp_path / "out")
    assert [(heat.entrant.said, heat.seed) for heat in found[:3]] == [("full", 1), ("full", 2), ("lora r=16", 1)]
    assert (
        "train.learning_rate=1e-05" in found[0].words and found[0].note == "learning rate 1e-05: 0.001 is none for full"
    )
    assert "method.r=16" in found[2].words and not found[2].note
    assert not found[4].note and found[4].folder.name == "full-train.learning_rate-1e-3-1"
    with pytest.raises(RecipeError, match="named twice"):
        heats(recipe, [], [Entrant("full"), Entrant("full")], (1,), tmp_path)
    with pytest.raises(RecipeError, match="did you mean 'lora'"):
        heats(recipe, [], [Entrant("lorra")], (1,), tmp_path)


def one(method, after, error, peak=100.0, seconds=10.0):
    return Row(
        method, 1, measure="accuracy", before=0.5, after=after, error=error, peak_memory_mb=peak, seconds=seconds
    )


def test_a_difference_that_may_be_chance_is_called_none():
    rows = judged([
        one("a", 0.80, 0.02), one("b", 0.84, 0.02, peak=200.0), one("c", 0.70, 0.02, 300.0, 20.0),
        Row("d", 0, "no disk"),
    ])  # fmt: skip
    assert [found.method for found in rows] == ["b", "a", "c", "d"]
    assert [found.verdict for found in rows] == ["best", "no significant difference", "worse", ""]
    assert [found.pareto for found in rows] == [True, True, False, False]
    assert rows[0].interval == pytest.approx((0.84 - 0.0392, 0.84 + 0.0392))
    shown = page(rows, "A <b>", ["about"])
    assert "failed: no disk" in shown and "A &lt;b&gt;" in shown and picture(rows)[:4] == b"\x89PNG"
    assert cells(rows[0])[2] == "84.0% (80.1% to 87.9%)"


def test_losses_are_ordered_from_low_and_told_apart_by_seeds():
    rows = judged([Row("a", 2, after=2.0, error=0.1), Row("b", 2, after=1.0, error=0.1), Row("c", 1, after=1.1)])
    assert [(found.method, found.verdict) for found in rows] == [
        ("b", "best"), ("c", "not known: run more seeds"), ("a", "worse"),
    ]  # fmt: skip


def test_a_comparison_from_the_command_line_goes_on_past_what_fails_and_is_not_run_twice(recipe, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["compare", str(recipe), "--methods", "lora, ia3 target_modules=[nowhere]", "--out", str(out), "--json"]
    with pytest.raises(SystemExit) as left:
        main([*words, "eval.max_samples=10"])
    assert not left.value.code
    found = json.loads(capsys.readouterr().out)
    assert [one["method"] for one in found] == ["lora", "ia3 target_modules=[nowhere]"]
    assert found[0]["verdict"] == "best" and found[0]["seeds"] == 1 and 0 < found[0]["retained"] <= 1.5
    assert found[0]["trainable"] > 0 and found[0]["disk_mb"] > 0 and found[0]["peak_memory_mb"] > 100
    assert "target_modules" in found[1]["failed"] and found[1]["after"] is None
    assert (out / "comparison.html").read_text().count("<tr") == 3 and (out / "comparison.png").stat().st_size > 1000
    again = heats(recipe, ["eval.max_samples=10", "eval.retention=true"], [Entrant("lora")], (1,), out)
    before = (out / "lora-1/run.json").stat().st_mtime_ns
    assert row(again, [""]).after == found[0]["after"]
    with pytest.raises(SystemExit) as left:
        main([*words, "eval.max_samples=11"])
    assert left.value.code == 2 and "is of another recipe" in capsys.readouterr().err
    assert (out / "lora-1/run.json").stat().st_mtime_ns == before
