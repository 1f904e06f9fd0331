"""A run in a process of its own is told to stop, and goes on later as if it had not been."""

import json
import signal
import subprocess
import sys
import time

import pytest
from safetensors.torch import load_file

TUNESMITH = [sys.executable, "-m", "tunesmith"]


def words(model_folder, reviews, output) -> list[str]:
    return [
        *TUNESMITH, "train", f"model.path={model_folder}", f"data.path={reviews}", f"output={output}",
        "data.format.name=template", "train.max_steps=300", "eval.enabled=false", "train.logging_steps=1",
    ]  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_says_how_to_go_on(model_folder, reviews, tmp_path, number):
    whole = subprocess.run(words(model_folder, reviews, tmp_path / "whole"), capture_output=True, text=True)
    assert whole.returncode == 0, whole.stderr
    metrics = tmp_path / "run" / "metrics.jsonl"
    run = subprocess.Popen(words(model_folder, reviews, tmp_path / "run"), stderr=subprocess.PIPE, text=True)
    while run.poll() is None and not (metrics.exists() and len(metrics.read_text().splitlines()) > 20):
        time.sleep(0.01)
    run.send_signal(number)
    said = run.communicate(timeout=60)[1]
    assert run.returncode == 75, said
    resume = said.strip().splitlines()[-1].partition("go on with: tunesmith ")[2].split()
    assert resume == ["train", "--resume", str(tmp_path / "run")]
    again = subprocess.run([*TUNESMITH, *resume, "--json"], capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["run"] == str(tmp_path / "run")
    steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines()]
    assert steps == list(range(1, 301))
    one, other = (load_file(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in ("whole", "run"))
    assert all(tensor.equal(other[name]) for name, tensor in one.items())
