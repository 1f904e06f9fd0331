"""Methods held against each other: the same rows for each, and no difference called one that may be chance."""

import json
from dataclasses import replace
from threading import Barrier

import pytest

from tunesmith.cli import main
from tunesmith.compare.budget import Budget, Spent
from tunesmith.compare.contest import Contest, Entrant, apart, here
from tunesmith.compare.figures import Row, judged, row
from tunesmith.compare.lanes import Lanes, shares
from tunesmith.compare.page import cells, notes, page, picture
from tunesmith.compare.sweep import compared
from tunesmith.errors import RecipeError
from tunesmith.runs import RunFolder


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


def contest(recipe, *said, words=(), seeds=(1,), name="out", **more):
    return Contest(recipe, tuple(words), tuple(map(Entrant, said)), seeds, recipe.parent / name, **more)


def test_runs_are_of_each_method_with_each_seed_at_a_rate_that_suits_it(recipe):
    said = ("full", "lora r=16", "full train.learning_rate=1e-3")
    full, lora, third = contest(recipe, *said, words=["train.max_steps=2"], seeds=(1, 2)).heats
    assert [(heat.entrant.said, heat.seed) for heat in (*full, lora[0])] == [("full", 1), ("full", 2), ("lora r=16", 1)]
    assert "train.learning_rate=2e-05" in full[0].words
    assert full[0].note == "learning rate 2e-05 (advisor: rate-full): 0.001 is none for full"
    assert "method.r=16" in lora[0].words and not lora[0].note
    assert not third[0].note and third[0].folder.name == "full-train.learning_rate-1e-3-1"
    with pytest.raises(RecipeError, match="named twice"):
        _ = contest(recipe, "full", "full").heats
    with pytest.raises(RecipeError, match="did you mean 'lora'"):
        _ = contest(recipe, "lorra").heats
    with pytest.raises(RecipeError, match="--sweep: .* taken off a budget"):
        _ = contest(recipe, "lora", sweep=3).heats


def test_a_variant_is_a_method_with_keys_of_the_recipe_or_its_own():
    said = "lora target_modules=[q_proj, v_proj], lora r=2 data.also=[{path: a, max_samples: 3}] objective=sft, full"
    one, two, three = map(Entrant, apart(said, ","))
    assert one.words == ["method=lora", "method.target_modules=[q_proj, v_proj]"]
    assert two.words == ["method=lora", "method.r=2", "data.also=[{path: a, max_samples: 3}]", "objective=sft"]
    assert three.words == ["method=full"]
    assert apart("lora init_text='one, two', ia3", ",") == ["lora init_text='one, two'", "ia3"]
    long = Entrant(f"lora data.also=[{{path: {'x' * 300}}}]").name
    assert len(long) < 100 and long != Entrant(f"lora data.also=[{{path: {'x' * 301}}}]").name


def test_a_budget_is_read_as_it_is_written():
    for said, budget in {
        "400steps": Budget("steps", 400), "1e6tokens": Budget("tokens", 1e6), "90s": Budget("seconds", 90),
        "10m": Budget("seconds", 600), "1.5h": Budget("seconds", 5400),
    }.items():  # fmt: skip
        assert Budget.read(said) == budget
    for wrong in ("steps", "10", "0m", "-3steps", "0.5steps", "ten minutes"):
        with pytest.raises(RecipeError, match="--budget: must be steps, tokens or time"):
            Budget.read(wrong)


def test_a_sweep_takes_the_best_rate_and_its_steps_off_the_budget(recipe):
    asked = contest(recipe, "lora", "ia3 target_modules=[nowhere]", budget=Budget("steps", 20), sweep=3)
    found, failed = compared(asked, lambda text: None, here)
    assert found.searched.steps == 6 and found.steps == 14 and found.searched.tokens > 0
    folders = sorted(asked.out.glob("lora-rate-*"))
    losses = {folder.name: RunFolder(folder).metrics[-1]["eval_loss"] for folder in folders}
    assert [folder.name for folder in folders] == ["lora-rate-0.000333", "lora-rate-0.001", "lora-rate-0.003"]
    taken = RunFolder(asked.out / "lora-1").recipe().value
    assert f"lora-rate-{taken.train.learning_rate:g}" == min(losses, key=losses.__getitem__)
    assert taken.data.validation_size == 0 and taken.train.max_steps == 14
    assert "the best of" in found.note and "6 steps of 20 steps" in found.note
    assert not list(asked.out.glob("lora-rate-*/adapter")) and (asked.out / "lora-1/adapter").is_dir()
    assert "target_modules" in failed.failed and failed.after is None and len(notes([found, failed])) == 1


def test_tokens_are_counted_exactly_and_a_clock_ends_a_run(recipe):
    by_tokens = contest(recipe, "lora", budget=Budget("tokens", 700))
    [found] = compared(by_tokens, lambda text: None, here)
    lines = [line for line in RunFolder(by_tokens.out / "lora-1").metrics if "tokens" in line]
    assert found.tokens == lines[-1]["tokens"] >= 700 and found.searched == Spent()
    assert found.tokens - 700 < found.tokens / found.steps * 1.5 and lines[-1]["learning_rate"] < 1e-3 / found.steps * 2
    budget = Budget("seconds", 1.0)
    by_time = contest(recipe, "lora r=2", words=["train.per_device_train_batch_size=2"], budget=budget)
    [found] = compared(by_time, lambda text: None, here)
    planned = RunFolder(by_time.out / "lora-r-2-1").recipe().value.train
    assert 0 < found.searched.steps <= 8 and 1 < found.steps <= planned.max_steps
    assert planned.max_seconds < 1.0 and found.seconds < planned.max_seconds + 0.5
    assert "short runs took" in found.note


def test_runs_at_once_give_what_they_give_one_by_one(recipe):
    together = Barrier(2, timeout=60)

    def begin(words):
        together.wait()  # breaks where the other does not run meanwhile
        return here(words)

    asked = contest(recipe, "lora", "lora r=2", seeds=(1, 2))
    at_once = compared(asked, lambda text: None, begin, at_once=2)
    alone = compared(contest(recipe, "lora", "lora r=2", seeds=(1, 2), name="alone"), lambda text: None, here)
    assert [found.seeds for found in at_once] == [2, 2]
    assert [(found.method, found.after) for found in at_once] == [(found.method, found.after) for found in alone]


def test_each_of_several_runs_has_its_share_of_the_machine():
    assert shares(1, 8, 4, {}) == [{}]
    assert shares(3, 8, 0, {}) == [{"OMP_NUM_THREADS": "2"}] * 3
    assert shares(2, 8, 1, {"OMP_NUM_THREADS": "1"}) == [{"OMP_NUM_THREADS": "1"}] * 2
    placed = shares(3, 8, 2, {"CUDA_VISIBLE_DEVICES": "4,6"})
    assert [one["CUDA_VISIBLE_DEVICES"] for one in placed] == ["4", "6", "4"]
    with pytest.raises(RecipeError, match="--parallel: each run needs a core, and there are"):
        Lanes(1000)


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
    assert cells(rows[0])[2:4] == ["84.0% (80.1% to 87.9%)", ""]
    assert cells(replace(rows[0], seeds=3, spread=0.011))[3] == "±1.1% of 3"


def test_what_was_measured_otherwise_is_not_held_against_the_rest():
    mine, theirs = ("these rows",), ("other rows",)
    rows = judged([
        Row("a", 2, after=0.5, error=0.01, judged=mine), Row("b", 2, after=0.4, error=0.01, judged=mine),
        Row("c", 2, after=0.1, error=0.01, judged=theirs), Row("d", 2, after=0.2, error=0.01, judged=(*mine, "kl")),
    ])  # fmt: skip
    assert [found.method for found in rows] == ["b", "a", "c", "d"]
    assert "measured on other rows" in rows[2].verdict and "another objective" in rows[3].verdict


def test_losses_are_ordered_from_low_and_told_apart_by_seeds():
    rows = judged([Row("a", 2, after=2.0, error=0.1), Row("b", 2, after=1.0, error=0.1), Row("c", 1, after=1.1)])
    assert [(found.method, found.verdict) for found in rows] == [
        ("b", "best"), ("c", "not known: run more seeds"), ("a", "worse"),
    ]  # fmt: skip


def test_a_comparison_from_the_command_line_goes_on_past_what_fails_and_is_not_run_twice(recipe, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["compare", str(recipe), "--methods", "lora, full train.fp16=true", "--out", str(out), "--json"]
    with pytest.raises(SystemExit) as left:
        main([*words, "eval.max_samples=10"])
    assert not left.value.code
    found = json.loads(capsys.readouterr().out)
    assert [one["method"] for one in found] == ["lora", "full train.fp16=true"]
    assert found[0]["verdict"] == "best" and found[0]["seeds"] == 1 and 0 < found[0]["retained"] <= 1.5
    assert found[0]["trainable"] > 0 and found[0]["disk_mb"] > 0 and found[0]["peak_memory_mb"] > 100
    assert "needs a GPU" in found[1]["failed"] and found[1]["after"] is None
    assert (out / "comparison.html").read_text().count("<tr") == 3 and (out / "comparison.png").stat().st_size > 1000
    [again] = contest(recipe, "lora", words=["eval.max_samples=10", "eval.retention=true"]).heats
    before = (out / "lora-1/run.json").stat().st_mtime_ns
    assert row(again, [""]).after == found[0]["after"]
    with pytest.raises(SystemExit) as left:
        main([*words, "eval.max_samples=11"])
    assert left.value.code == 2 and "is of another recipe" in capsys.readouterr().err
    assert (out / "lora-1/run.json").stat().st_mtime_ns == before
