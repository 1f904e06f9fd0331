"""A run that has been done holds its plan against what it took."""

import json
import os
import signal
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch

from tunesmith import machine
from tunesmith.config.load import load
from tunesmith.errors import Stopped
from tunesmith.machine import peak_memory_mb, processor, threads
from tunesmith.plan import past
from tunesmith.plan.device import COUNTED, this_cpu
from tunesmith.plan.estimate import Setting
from tunesmith.run import Run
from tunesmith.training import planned
from tunesmith.training.train import train


def known_processor(home):
    """A processor that has been measured: nothing is timed."""
    rates = [[8, 1e9], [512, 5e10]]
    known = {
        "full": rates,
        "half": rates,
        "attention": 1e11,
        "bandwidth": 1e10,
        "intake": 1e10,
        "call": 1e-5,
        "framework": peak_memory_mb() / 1024,
    }
    place = home / "plan" / f"processor-{threads()}.json"
    place.parent.mkdir(parents=True)
    key = {"processor": processor(), "threads": threads(), "torch": torch.__version__, "counted": COUNTED}
    place.write_text(json.dumps({"key": key, **known}))
    return place.with_name("runs.json")


def test_a_run_is_held_against_the_plan_that_was_shown(tmp_path, monkeypatch, model_folder, reviews, capsys):
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(planned, "TELLS", 0.0)
    kept = known_processor(tmp_path / "home")
    usual = [f"model.path={model_folder}", f"data.path={reviews}", "train.max_steps=3"]
    written = ["data.format.name=template", "data.format.prompt=judge: {text}", "data.format.answer={label}"]
    whole = [*usual, *written, "method=full", "eval.retention=true"]
    small = [*usual, "objective=classify", "eval.enabled=false"]

    def done(words, name):
        result = train(load(Run, None, [*words, f"output={tmp_path / name}"]).value)
        assert "planned" in capsys.readouterr().err
        return result, json.loads((tmp_path / name / "run.json").read_text())["plan"]

    shown, rows, _ = planned.asked(load(Run, None, whole).value, Setting(this_cpu()), (None, None), print)
    assert len(rows.ranked) == 8 and rows.measured and shown.memory["logits"]  # most is there when skills are asked for
    monkeypatch.setattr(machine, "RISEN", 0.0)  # what the tests before held does not matter
    result, told = done(whole, "whole")
    assert told["memory"]["planned"] == shown.peak and told["time"]["planned"] == shown.step_seconds
    assert told["memory"]["measured"] * 1024 == result.peak_memory_mb and abs(told["memory"]["error"]) < 0.5
    again, _, _ = planned.asked(load(Run, None, whole).value, Setting(this_cpu()), (None, None), print)
    assert again.peak * 1024 == pytest.approx(result.peak_memory_mb)  # corrected by the first
    monkeypatch.undo()
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(planned, "TELLS", 0.0)
    _, told = done(small, "small")
    assert told.keys() == {"time"}  # the process's peak is still that of others
    runs = json.loads(kept.read_text())["runs"]
    assert [one.keys() & {"memory", "time"} for one in runs] == [{"memory", "time"}, {"time"}]

    monkeypatch.setattr(planned, "this_cpu", lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Stopped, match="SIGTERM"):
        train(load(Run, None, [*small, f"output={tmp_path / 'stopped'}"]).value)
    assert json.loads((tmp_path / "stopped" / "run.json").read_text())["status"] == "stopped"


def test_the_benchmark_plans_without_what_was_learnt_of_runs(tmp_path, monkeypatch, model_folder, reviews, capsys):
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(past, "nearest", past.nearest)  # so that it is put back
    bench = Path(__file__).parents[2] / "bench"
    monkeypatch.syspath_prepend(str(bench))
    kept = known_processor(tmp_path / "home")
    alike = {"model": f"llama {model_folder}", "method": "full", "objective": "classify"}
    took = {what: {"planned": 1.0, "measured": 3.0} for what in ("memory", "time")}
    run = {"device": this_cpu().name, "counted": COUNTED, **alike, **took}
    kept.write_text(json.dumps({"runs": [run | {"counted": COUNTED - 1}]}))
    assert not past.nearest(this_cpu(), alike, "time")  # planned by another way of counting
    kept.write_text(json.dumps({"runs": [run]}))
    assert past.nearest(this_cpu(), alike, "time")
    spec = spec_from_file_location("bench_plan", bench / "plan.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    module.predict([[f"model.path={model_folder}", f"data.path={reviews}", "method=full", "objective=classify"]])
    memory = json.loads(capsys.readouterr().out)["memory"]
    assert memory["weights"] > 0 and "as runs here have shown" not in memory
