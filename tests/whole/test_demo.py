"""The main job on the real model and the real reviews."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def told(*words) -> dict:
    """What a command prints with --json."""
    ran = subprocess.run(
        [sys.executable, "-m", "tunesmith", *map(str, words), "--json"], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_two_steps_of_the_quickstart_make_the_real_model_better(tmp_path):
    few = ["train.max_steps=2", "eval.max_samples=16", "eval.max_new_tokens=4"]
    result = told("quickstart", *few, f"output={tmp_path / 'run'}")
    assert result["after"]["loss"] < result["before"]["loss"]
    assert result["before"]["n"] == result["after"]["n"] == 16


@pytest.mark.slow
def test_the_quickstart_reaches_its_goal(tmp_path):
    result = told("quickstart", f"output={tmp_path / 'run'}")
    assert result["after"]["n"] >= 500
    assert result["after"]["accuracy"] >= 0.88
    assert result["before"]["interval"][1] < result["after"]["interval"][0]


@pytest.mark.slow
def test_the_encoder_reaches_its_goal(tmp_path):
    result = told("train", ROOT / "recipes" / "bert-sentiment.yaml", f"output={tmp_path / 'run'}")
    assert result["after"]["n"] == 1000
    assert result["after"]["accuracy"] >= 0.83
