"""A run that is told to stop goes on later as if it had not been."""

import json
import signal
import subprocess
import sys
import time

import pytest
from faults.test_faults import ALONE
from safetensors.torch import load_file

STEPS = 80


@pytest.fixture
def words(model_folder, reviews):
    return [
        "train", f"model.path={model_folder}", f"data.path={reviews}", "data.format.name=template",
        f"train.max_steps={STEPS}", "eval.enabled=false", "train.logging_steps=1",
    ]  # fmt: skip


def interrupted(words, run) -> tuple[int, str]:
    """In a process of its own, as from a shell; its exit code, and what it said."""
    metrics = run / "metrics.jsonl"
    command = [sys.executable, "-m", "tunesmith", *words, f"output={run}"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=ALONE)
    while process.poll() is None and not (metrics.exists() and len(metrics.read_text().splitlines()) > 20):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    return process.returncode, said


def test_a_signal_saves_and_says_how_to_go_on(ready, words, tmp_path):
    """One is Ctrl-C, in a program that was begun from a shell; `runs stop` sends such a one the other."""
    log = tmp_path / "log"
    code, said = ready.run(*words, f"output={tmp_path / 'whole'}", log=log)
    assert code == 0, said
    whole = load_file(tmp_path / "whole/adapter/adapter_model.safetensors")
    moment = ("said step 21/*", "kill -TERM $PID")
    stopped = {
        "SIGINT": interrupted(words, tmp_path / "SIGINT"),
        "SIGTERM": ready.run(*words, f"output={tmp_path / 'SIGTERM'}", log=log, moments=[moment]),
    }
    for name, (code, said) in stopped.items():
        assert code == 75, (name, said)
        run = tmp_path / name
        resume = said.strip().splitlines()[-1].partition("go on with: tunesmith ")[2].split()
        assert resume == ["train", "--resume", str(run)]
        code, said = ready.run(*resume, "--json", log=log)
        assert code == 0, (name, said)
        assert json.loads(said[said.index("\n{") :])["run"] == str(run)
        steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert steps == list(range(1, STEPS + 1)), name
        learnt = load_file(run / "adapter/adapter_model.safetensors")
        assert all(tensor.equal(learnt[key]) for key, tensor in whole.items()), name
