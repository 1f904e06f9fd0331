"""A run that has been done holds its plan against what it took."""

import json
import subprocess
import sys

RUNS = """
import json, os, sys, time
from pathlib import Path

import torch
from tunesmith.config.load import load
from tunesmith.machine import processor, threads
from tunesmith.run import Run
from tunesmith.training import planned
from tunesmith.training.train import train

planned.TELLS = 0.0
place = Path(os.environ["TUNESMITH_HOME"]) / "plan"
place.mkdir(parents=True)
rates = [[8, 1e9], [512, 5e10]]
known = {"full": rates, "half": rates, "bandwidth": 1e10, "call": 1e-5, "framework": 0.4}
key = {"processor": processor(), "threads": threads(), "torch": torch.__version__}
(place / f"processor-{threads()}.json").write_text(json.dumps({"key": key, **known}))
results = [train(load(Run, None, words).value, quiet=True).peak_memory_mb for words in json.loads(sys.argv[1])]
(place / "runs.json").rename(place / "done.json")  # so that nothing is corrected
again = load(Run, None, json.loads(sys.argv[1])[0]).value
made, rows, _ = planned.asked(again, planned.Setting(planned.this_cpu()), (None, None), print)
told = {"peak": made.peak, "step": made.step_seconds, "memory": made.memory, "questions": len(rows.ranked)}
sys.stdout.write(json.dumps({"peaks": results, **told}) + chr(10))
"""


def test_a_run_is_held_against_the_plan_that_was_shown(tmp_path, monkeypatch, model_folder, reviews):
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path / "home"))
    usual = [f"model.path={model_folder}", f"data.path={reviews}", "train.max_steps=3"]
    written = ["data.format.name=template", "data.format.prompt=judge: {text}", "data.format.answer={label}"]
    whole = [*usual, *written, "method=full", "eval.retention=true", f"output={tmp_path / 'whole'}"]
    small = [*usual, "objective=classify", "eval.enabled=false", f"output={tmp_path / 'small'}"]
    done = subprocess.run([sys.executable, "-c", RUNS, json.dumps([whole, small])], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout.splitlines()[-1])
    first, second = (json.loads((tmp_path / name / "run.json").read_text())["plan"] for name in ("whole", "small"))
    assert first["memory"]["planned"] == shown["peak"] and first["time"]["planned"] == shown["step"]
    assert first["memory"]["measured"] * 1024 == shown["peaks"][0] and abs(first["memory"]["error"]) < 0.5
    assert shown["questions"] == 8 and "KV cache" in shown["memory"]  # most is there when skills are asked for
    assert second.keys() == {"time"}  # the process's peak is still that of the first
    runs = json.loads((tmp_path / "home" / "plan" / "done.json").read_text())["runs"]
    assert [one.keys() - {"model", "method", "objective", "device"} for one in runs] == [{"memory", "time"}, {"time"}]
