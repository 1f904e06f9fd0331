"""Runs that there are, held against each other: by figures, curves, recipes, and row by row."""

import csv
import json
import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from training.test_resume import run_of

from tunesmith.cli import main
from tunesmith.compare.chance import by_chance, holm
from tunesmith.compare.contest import Entrant, Heat
from tunesmith.compare.figures import judged, row
from tunesmith.methods.lora import LoRA
from tunesmith.objectives.classify import Classify
from tunesmith.objectives.pretrain import Pretrain
from tunesmith.run import Eval
from tunesmith.runs import RunFolder
from tunesmith.training.train import train


def ask(capsys, *words) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        main([*map(str, words)])
    return left.value.code or 0, *capsys.readouterr()


def made(model_folder, reviews, folder, rate, **more):
    run = run_of(model_folder, reviews, folder, LoRA(r=4), Classify(), learning_rate=rate, logging_steps=2, **more)
    run = replace(run, data=replace(run.data, eval_size=0.4), eval=Eval(enabled="eval" not in folder.name))
    train(run, quiet=True)
    return folder


def test_runs_are_compared_and_exported(model_folder, reviews, tmp_path, capsys):
    good = made(model_folder, reviews, tmp_path / "good", 3e-2, max_steps=30)
    poor = made(model_folder, reviews, tmp_path / "<b>poor", 1e-7)
    blind = made(model_folder, reviews, tmp_path / "no eval", 1e-7, max_steps=2)
    page = tmp_path / "page.html"

    code, said, _ = ask(capsys, "runs", "compare", poor, good, blind, "--to", page, "--json")
    assert code == 0
    told = json.loads(said)
    assert told["recipes"]["train.learning_rate"]["good"] == {"value": "0.03", "origin": "Python"}
    assert set(told["recipes"]) == {"train.learning_rate", "train.max_steps", "eval.enabled"}
    facts = {folder.name: RunFolder(folder).facts for folder in (good, poor)}
    right = {name: known["right"]["after"] for name, known in facts.items()}
    for name, known in facts.items():
        assert np.mean(right[name]) == pytest.approx(known["after"]["accuracy"])
        assert told["figures"][name]["accuracy after"] == known["after"]["accuracy"]
    [held] = [one for one in told["verdicts"] if not one["unknown"]]
    assert (held["one"], held["other"], held["rows"]) == ("<b>poor", "good", len(right["good"]))
    assert held["difference"] == pytest.approx(np.mean(right["good"]) - np.mean(right["<b>poor"]))
    only = [sum(a and not b for a, b in zip(right[x], right[y], strict=True)) for x, y in (facts, [*facts][::-1])]
    assert held["p"] == pytest.approx(min(1, binomial(sum(only), min(only))))
    assert held["p"] < 0.05, "the test needs two runs that differ"
    assert all("no eval has no result of each row" in one["unknown"] for one in told["verdicts"] if one is not held)

    text = page.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>") and "<b>poor" not in text and "&lt;b&gt;poor" in text
    assert "http://" not in text and "https://" not in text and "<script" not in text
    losses = next(part for part in text.split("<h3>") if part.startswith("loss<"))
    assert losses.count('class="curve ') == 3

    code, said, _ = ask(capsys, "runs", "compare", poor, good, "--to", page)
    assert code == 0 and f"points of accuracy on {held['rows']} rows" in said.replace("\n", " ") and "better" in said
    assert "0.03 (Python)" in said

    code, said, _ = ask(capsys, "runs", "export", "csv", good, blind, "--to", tmp_path / "all.csv")
    rows = list(csv.DictReader((tmp_path / "all.csv").read_text(encoding="utf-8").splitlines()))
    assert f"{len(rows)} steps of 2 runs" in said
    logged = {("good", line["step"]): line["loss"] for line in RunFolder(good).metrics if "loss" in line}
    logged |= {("no eval", line["step"]): line["loss"] for line in RunFolder(blind).metrics if "loss" in line}
    assert {(row["run"], int(row["step"])): float(row["loss"]) for row in rows} == logged

    code, _, said = ask(capsys, "runs", "compare", good, good / ".", "--to", page)
    assert (code, "2 or more different folders" in said) == (2, True)
    code, _, said = ask(capsys, "runs", "compare", good, tmp_path, "--to", page)
    assert (code, "is no run folder" in said) == (7, True)


def test_of_texts_the_losses_are_compared_row_by_row(model_folder, reviews, tmp_path, capsys):
    folders = [tmp_path / "slow", tmp_path / "fast"]
    for folder, rate in zip(folders, (1e-7, 2e-2), strict=True):
        run = run_of(model_folder, reviews, folder, LoRA(r=4), Pretrain(), learning_rate=rate, max_steps=12)
        train(replace(run, data=replace(run.data, eval_size=0.4), eval=Eval()), quiet=True)
    facts = [RunFolder(folder).facts for folder in folders]
    for known in facts:
        for side in ("before", "after"):
            assert np.mean(known["losses"][side]) == pytest.approx(known[side]["loss"], rel=1e-4)
            assert len(set(known["losses"][side])) > 5
    _, said, _ = ask(capsys, "runs", "compare", *folders, "--to", tmp_path / "page.html", "--json")
    [held] = json.loads(said)["verdicts"]
    assert held["difference"] == pytest.approx(facts[0]["after"]["loss"] - facts[1]["after"]["loss"], rel=1e-3)
    assert held["p"] < 0.01 and held["interval"][0] > 0
    _, said, _ = ask(capsys, "runs", "compare", *folders, "--to", tmp_path / "page.html")
    assert f"fast against slow: -{held['difference']:.4f} of loss on" in said.replace("\n", " ")

    heats = [Heat(Entrant(folder.name), 1, (), folder, "") for folder in folders]
    best, other = judged([row([heat], [""]) for heat in heats])
    assert (best.method, other.verdict) == ("fast", "worse") and other.p == pytest.approx(held["p"])
    assert other.worse == pytest.approx(held["interval"])
    losses = facts[1]["losses"]
    assert sum(losses["weights"]) == losses["tokens"] and len(losses["weights"]) == len(losses["after"])
    sums, sizes = np.array(losses["after"]) * losses["tokens"] / len(losses["after"]), np.array(losses["weights"])
    drawn = np.random.default_rng(5).integers(0, len(sums), (4000, len(sums)))
    ends = np.percentile(sums[drawn].sum(1) / sizes[drawn].sum(1), [2.5, 97.5])  # of a token, however long rows are
    assert best.interval == pytest.approx(ends, abs=0.15 * (ends[1] - ends[0]))
    facts[0]["losses"]["after"][3] = math.nan
    RunFolder(folders[0]).note(losses=facts[0]["losses"])
    _, said, _ = ask(capsys, "runs", "compare", *folders, "--to", tmp_path / "page.html")
    assert "slow has results that are no numbers" in said.replace("\n", " ")


def binomial(n: int, k: int) -> float:
    """Twice the chance of k or fewer heads, by going through every throw."""
    rows, total = [1], 2**n
    for _ in range(n):
        rows = [a + b for a, b in zip([0, *rows], [*rows, 0], strict=True)]
    return 2 * sum(rows[: k + 1]) / total


def test_chance_is_what_exchanging_two_runs_results_at_random_makes():
    draw = np.random.default_rng(1)
    for n in (5, 8, 10):
        apart = draw.normal(0.4, 1, n)
        every = np.array(list(product([-1, 1], repeat=n))) @ apart
        exact = float((np.abs(every) >= abs(apart.sum()) - 1e-9).mean())
        assert by_chance(apart) == pytest.approx(exact, abs=0.02)
    marks = np.array([1, 1, 1, 1, -1, 0, 0])
    assert by_chance(marks) == pytest.approx(2 * 6 / 32) and by_chance(np.zeros(4)) == 1
    assert by_chance(marks[::-1]) == by_chance(-marks) == by_chance(marks)


def test_of_many_runs_without_a_difference_few_are_said_to_differ():
    draw, wrong = np.random.default_rng(0), 0
    for _ in range(300):
        ps = [by_chance(draw.integers(0, 2, 60) - draw.integers(0, 2, 60)) for _ in range(5)]
        wrong += min(holm(ps)) < 0.05
    assert wrong <= 300 * 0.05 * 1.5
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
