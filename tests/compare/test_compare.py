"""Methods held against each other: the same rows for each, and no difference called one that may be chance."""

import json
import math
import os
import signal
import time
from dataclasses import replace
from threading import Barrier, Thread

import numpy as np
import pytest

from tunesmith.cli import main
from tunesmith.compare import sweep
from tunesmith.compare.budget import Budget, Spent
from tunesmith.compare.chance import Found, beyond, chance, corrected, interval, student
from tunesmith.compare.contest import Contest, Entrant, apart, here
from tunesmith.compare.figures import Row, judged, row
from tunesmith.compare.lanes import Lanes, shares
from tunesmith.compare.page import cells, notes, page, picture
from tunesmith.compare.sweep import compared
from tunesmith.errors import RecipeError, Stopped
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
    of_full = contest(recipe, "full", "lora", "freeze", "ia3", words=["method=full", "train.learning_rate=2e-5"])
    assert [heat.note.partition(")")[0].removeprefix("learning rate ") for [heat] in of_full.heats] == [
        "", "0.0005 (advisor: rate-lora-tiny", "0.0005 (advisor: rate-freeze-tiny", "0.003 (advisor: rate-few",
    ]  # fmt: skip
    of_pairs = contest(recipe, "lora", "full", words=["objective=dpo", "train.learning_rate=1e-5"])
    assert [heat.note[:23] for [heat] in of_pairs.heats] == ["", "learning rate 5e-07 (ad"]
    [[few_rows]] = contest(recipe, "full", words=["model.path=acme/wonder-7b"]).heats
    assert few_rows.note.startswith("learning rate 1e-05 (advisor: rate-full-small-data)")
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
    few = {"words": ["data.validation_size=1e-9"], "budget": Budget("steps", 20), "sweep": 2, "name": "few"}
    [none] = compared(contest(recipe, "lora", **few), lambda text: None, here)  # not judged by the rows of the end
    assert "data.validation_size=1e-09: none of 60 rows" in none.failed


def test_a_short_run_that_failed_is_not_tried_again(recipe, monkeypatch):
    monkeypatch.setattr(sweep, "APART", 1e60)
    asked, begun = contest(recipe, "lora", budget=Budget("steps", 40), sweep=2), []

    def begin(words):
        begun.append(words)
        return here(words)

    [found] = compared(asked, lambda text: None, begin)
    assert "a rate failed: " in found.note and RunFolder(asked.out / "lora-rate-1e+27").status == "diverged"
    assert len(begun) == 3 and found.searched.steps > 4
    assert compared(asked, lambda text: None, begin) == [found] and len(begun) == 3


def test_a_signal_has_the_run_save_and_no_other_begin(recipe):
    words = ["train.max_steps=1000000", "train.logging_steps=1", "eval.enabled=false"]
    asked, before = contest(recipe, "lora", "lora r=2", words=words), signal.getsignal(signal.SIGTERM)
    first, until = asked.out / "lora-1", time.monotonic() + 300

    def stop():
        while not (first / "metrics.jsonl").exists() and time.monotonic() < until:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    with Lanes() as lanes, pytest.raises(Stopped, match="the same command goes on from there"):
        Thread(target=stop, daemon=True).start()
        compared(asked, lambda text: None, lanes.begin)
    assert RunFolder(first).status == "stopped" and list(first.glob("checkpoints/step-*"))
    assert not (asked.out / "lora-r-2-1").exists() and signal.getsignal(signal.SIGTERM) == before


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


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # threads share what `hushed` hushes
def test_runs_at_once_give_what_they_give_one_by_one(recipe):
    together = Barrier(2, timeout=60)

    def begin(words):
        together.wait()  # breaks where the other does not run meanwhile
        return here(words)

    asked = contest(recipe, "lora", "lora r=2", seeds=(3,))
    at_once = compared(asked, lambda text: None, begin, at_once=2)
    alone = compared(contest(recipe, "lora", "lora r=2", seeds=(3,), name="alone"), lambda text: None, here)
    assert [found.seeds for found in at_once] == [1, 1]
    assert [(found.method, found.after) for found in at_once] == [(found.method, found.after) for found in alone]


def test_each_of_several_runs_has_its_share_of_the_machine():
    assert shares(1, 8, 4, {}) == [{}]
    assert shares(3, 8, 0, {}) == [{"OMP_NUM_THREADS": "2"}] * 3
    assert shares(2, 8, 1, {"OMP_NUM_THREADS": "1"}) == [{"OMP_NUM_THREADS": "1"}] * 2
    placed = shares(3, 8, 2, {"CUDA_VISIBLE_DEVICES": "4,6"})
    assert [one["CUDA_VISIBLE_DEVICES"] for one in placed] == ["4", "6", "4"]
    with pytest.raises(RecipeError, match="--parallel: each run needs a core, and there are"):
        Lanes(1000)


def one(method, each, seeds=(0.0,), peak=100.0, seconds=10.0, **more):
    """A method that is right of these rows, with each seed so much more of them."""
    figures = tuple(np.mean(each) + seed for seed in seeds)
    found = Found(figures, len(each), more.get("measure") != "loss", tuple(map(float, each)))
    facts = {"measure": "accuracy", "before": 0.5, "peak_memory_mb": peak, "seconds": seconds} | more
    return Row(method, len(seeds), after=float(np.mean(figures)), found=found, **facts)


def right(*spans, rows=400):
    return [any(low <= n < high for low, high in spans) for n in range(rows)]


def test_a_difference_that_may_be_chance_is_called_none():
    rows = judged([
        one("a", right((0, 300), (336, 358))), one("b", right((0, 336)), peak=200.0),
        one("c", right((0, 280)), peak=300.0, seconds=20.0), Row("d", 0, "no disk"),
    ])  # fmt: skip
    assert [found.method for found in rows] == ["b", "a", "c", "d"]
    assert [found.verdict for found in rows] == ["best", "no significant difference", "worse", ""]
    assert [found.pareto for found in rows] == [True, True, False, False]
    assert rows[1].p == pytest.approx(0.087, abs=1e-3)  # McNemar's, of 22 rows against 36
    assert rows[0].interval == pytest.approx((0.804, 0.876), abs=0.005)
    assert rows[2].worse == pytest.approx((0.14 - 0.034, 0.14 + 0.034), abs=0.005)
    shown = page(rows, "A <b>", ["about"])
    assert "failed: no disk" in shown and "A &lt;b&gt;" in shown and picture(rows)[:4] == b"\x89PNG"
    assert cells(rows[0])[3] == "" and cells(rows[0])[2].startswith("84.0% (80.")
    assert cells(rows[2])[4].startswith("worse (10.")
    assert cells(replace(rows[0], seeds=3, spread=0.011))[3] == "±1.1% of 3"


def test_of_few_rows_that_are_all_right_something_may_still_be_chance():
    [row, other] = judged([one("a", [True] * 12), one("b", [True] * 11 + [False])])
    assert cells(row)[2] == "100.0% (75.7% to 100.0%)"  # Wilson's
    assert other.verdict == "no significant difference" and other.interval == pytest.approx((0.646, 1.0), abs=1e-3)


def test_what_was_measured_otherwise_is_not_held_against_the_rest():
    these, sums = ("these rows", "dpo"), np.linspace(0.2, 0.8, 50)

    def loss(name, more, judged):
        return one(name, sums + more, measure="loss", judged=judged)

    rows = judged([
        loss("a", 0.1, these), loss("b", 0.0, these), loss("c", -0.3, ("others", "dpo")),
        loss("d", -0.2, ("these rows", "kl")), one("e", right((0, 9), rows=20), judged=("these rows", "freely")),
    ])  # fmt: skip
    assert [found.method for found in rows[:2]] == ["b", "a"]
    said = {found.method: found.verdict for found in rows}
    assert "measured on other rows" in said["c"] and "another objective" in said["d"] and "another way" in said["e"]


def test_losses_are_ordered_from_low_and_told_apart_by_rows_and_seeds():
    draw = np.random.default_rng(0)
    each = draw.gamma(2, 1, 100)  # rows differ far more than methods do
    rows = judged([
        one("a", each + draw.normal(0.3, 0.2, 100), measure="loss"), one("b", each, measure="loss"),
        one("c", each + draw.normal(0.01, 0.2, 100), measure="loss"),
    ])  # fmt: skip
    assert [found.verdict for found in rows] == ["best", "no significant difference", "worse"]
    assert rows[0].interval[1] - rows[0].interval[0] > 0.4 and 0.2 < rows[2].worse[0] < 0.3 < rows[2].worse[1] < 0.4
    alone = [Row(name, 1, after=after, found=Found((after,), 9)) for name, after in (("a", 2.0), ("b", 1.0))]
    assert [found.verdict for found in judged(alone)] == ["best", "not known: run more seeds"]

    def two(name, *figures):
        return Row(name, 2, after=float(np.mean(figures)), found=Found(figures, 9))

    assert interval(Found((1.0, 1.1), 9)) == pytest.approx((1.05 - 12.706 * 0.05, 1.05 + 12.706 * 0.05), abs=1e-3)
    assert judged([two("a", 1.5, 1.6), two("b", 1.0, 1.2)])[1].verdict == "no significant difference"
    assert judged([two("a", 9.5, 9.6), two("b", 1.0, 1.2)])[1].verdict == "worse"


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_of_methods_without_a_difference_few_are_called_worse_and_of_others_most(seeds):
    draw = np.random.default_rng(seeds)

    def drawn(more, by_row, by_seed):
        each = 1 + more + draw.normal(0, by_row, (seeds, 40)) + draw.normal(0, by_seed, (seeds, 1))
        return Found(tuple(each.mean(1)), 40, False, tuple(each.mean(0)))

    by_seed = 0.05 if seeds > 1 else 0.0
    wrong = [chance(drawn(0, 0.3, by_seed), drawn(0, 0.3, by_seed)) < 0.05 for _ in range(200)]
    assert np.mean(wrong) < 0.08
    found = [chance(drawn(0, 0.3, by_seed), drawn(1, 0.3, by_seed)) < 0.05 for _ in range(50)]
    assert np.mean(found) > 0.8
    if seeds > 1:  # nothing is known of rows
        true = [interval(Found(tuple(draw.normal(0, 1, seeds)))) for _ in range(400)]
        assert 0.92 < np.mean([low < 0 < high for low, high in true]) < 0.98


def test_students_t_is_that_of_the_tables():
    for free, value in {1: 12.706, 2: 4.303, 3: 3.182, 10: 2.228, 30: 2.042, 1e9: 1.960}.items():
        assert student(free) == pytest.approx(value, abs=1e-3) and beyond(value, free) == pytest.approx(0.05, abs=1e-4)
    assert student(2) < student(1.5) < student(1)
    assert corrected([0.01, None, 0.04, 0.03]) == [pytest.approx(0.03), None, pytest.approx(0.06), pytest.approx(0.06)]


def test_what_does_not_write_is_compared_without_general_skills(recipe):
    said = "lora objective=classify data.format=labelled"
    asked = contest(recipe, "lora", said, retention=True)
    [writes], [tells] = asked.heats
    assert "eval.retention=true" in writes.words and not any("retention" in word for word in tells.words)
    assert asked.unasked.startswith(f"retained: not asked of {said}: classify makes")
    assert "eval.retention=false" in contest(recipe, said, retention=False).heats[0][0].words
    assert not contest(recipe, "lora", retention=True).unasked and not contest(recipe, said).unasked
    only = contest(recipe, said, words=["train.max_steps=1"], retention=True)
    [found] = compared(only, lambda text: None, here)
    assert found.verdict == "best" and found.retained is None and not found.failed
    folder = RunFolder(only.heats[0][0].folder)
    result = folder.facts["result"]
    for loss, why in ((math.nan, "its loss afterwards is nan"), (math.inf, "is inf"), (None, "data.eval_size")):
        folder.note(result=result | {"after": None if loss is None else result["after"] | {"loss": loss}})
        failed = row(only.heats[0], [""])
        assert failed.after is None and why in failed.failed


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
