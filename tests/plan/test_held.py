"""A run that has been done holds its plan against what it took."""

import json

import psutil
import torch

from tunesmith.config.load import load
from tunesmith.machine import processor, threads
from tunesmith.plan.device import GB
from tunesmith.run import Run
from tunesmith.training import planned
from tunesmith.training.train import train


def test_a_run_says_how_far_its_plan_was_right(tmp_path, monkeypatch, model_folder, reviews, capsys):
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(planned, "TELLS", 0.0)
    rates = [[8, 1e9], [512, 5e10]]
    known = {
        "full": rates,
        "half": rates,
        "bandwidth": 1e10,
        "call": 1e-5,
        "framework": psutil.Process().memory_info().rss / GB,
    }
    place = tmp_path / "home" / "plan" / f"processor-{threads()}.json"
    place.parent.mkdir(parents=True)
    place.write_text(
        json.dumps({"key": {"processor": processor(), "threads": threads(), "torch": torch.__version__}, **known})
    )
    words = [
        f"model.path={model_folder}", f"data.path={reviews}", "objective=classify", "eval.enabled=false",
        "train.save_strategy=no", "train.max_steps=3",
    ]  # fmt: skip
    for number in range(2):
        folder = tmp_path / str(number)
        result = train(load(Run, None, [*words, f"output={folder}"]).value)
        told = json.loads((folder / "run.json").read_text())["plan"]
        assert told["memory"]["measured"] * 1024 == result.peak_memory_mb
        assert abs(told["memory"]["error"]) < (0.5, 0.1)[number]  # the second is corrected by the first
        assert abs(told["time"]["planned"] / told["time"]["measured"]) > 0
        assert "planned" in capsys.readouterr().err
    assert len(json.loads((place.parent / "runs.json").read_text())["runs"]) == 2
