"""A learning rate at which a method learns nothing, or forgets, is said before training."""

from pathlib import Path

import pytest
from tinyrun import loop_of, sequences_for

from tunesmith.methods.base import method
from tunesmith.objectives.sft import SFT
from tunesmith.optimizers.sgd import SGD
from tunesmith.training.before import ways


@pytest.mark.parametrize(
    ("name", "rate", "says"),
    [
        ("prompt_tuning", 1e-3, "0.001 is low for prompt_tuning, which learns best between 0.01 and 0.3; try 0.01"),
        ("full", 1e-3, "0.001 is high for full, which learns best between 1e-06 and 0.0001; try 0.0001"),
        ("lora", 1e-3, ""),
    ],
)
def test_a_rate_for_another_method_is_said(tiny, name, rate, says):
    judge = SFT()
    for optim in ({}, {"optim": SGD()}):
        loop = loop_of(tiny, method[name](), judge, sequences_for(judge), learning_rate=rate, **optim)
        told = [line for line in ways(loop) if line.startswith("train.learning_rate: ")]
        assert told == ([f"train.learning_rate: {says}"] if says and not optim else [])


@pytest.mark.parametrize("page", ["rates.md", "rates.zh.md"])
def test_the_page_has_the_rates_of_every_method(page):
    text = (Path(__file__).parents[2] / "docs" / page).read_text(encoding="utf-8")
    every = sorted((name, entry.suits) for name, entry in method.all().items())
    rows = [f"| `{name}` | {low:g} | {high:g} |" for name, (low, high) in every]
    assert text.rstrip().split("\n")[-len(rows) :] == rows
