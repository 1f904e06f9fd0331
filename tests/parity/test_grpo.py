"""GRPO's loss, its variants and their slopes are TRL's on the same numbers."""

import json
from pathlib import Path

import pytest
import torch

from tunesmith.objectives._online import Rolled
from tunesmith.objectives.base import LogProbs
from tunesmith.objectives.grpo import GRPO

TRL = json.loads(Path(__file__).with_name("grpo.json").read_text(encoding="utf-8"))


def flat(rows):
    return torch.tensor([one for row in rows for one in row], dtype=torch.float64)


@pytest.mark.parametrize("case", TRL["cases"], ids=[case["name"] for case in TRL["cases"]])
def test_values_and_gradients_are_those_of_trl(case):
    lengths = torch.tensor([len(row) for row in TRL["token"]])
    owner = torch.arange(len(lengths)).repeat_interleave(lengths)
    token = flat(TRL["token"]).requires_grad_()
    gain = torch.tensor(TRL["advantage"], dtype=torch.float64)[owner]
    judge = GRPO(max_completion_length=TRL["longest"], **case["options"])
    asked = {"reference": LogProbs(flat(TRL["reference"]), owner, len(lengths))} if judge.beta else {}
    now = LogProbs(token, owner, len(lengths))
    ended = torch.tensor([n not in TRL["truncated"] for n in range(len(lengths))])
    counts = judge.advantages(Rolled(torch.zeros(len(lengths)), lengths, 2, ended))["counts"]
    loss = judge.loss(None, logp=now, old=flat(TRL["old"]), advantage=gain, counts=counts.double(), **asked)
    (loss.sum / loss.count).backward()
    expected = flat(case["gradient"])
    assert float((loss.sum / loss.count).detach()) == pytest.approx(case["value"], abs=1e-5)
    assert torch.allclose(token.grad, expected, atol=1e-5)
    assert expected.any()


def test_each_case_is_another():
    slopes = [flat(case["gradient"]) for case in TRL["cases"]]
    assert all(not torch.allclose(a, b, atol=1e-4) for at, a in enumerate(slopes) for b in slopes[:at])


def test_some_tokens_are_beyond_where_they_may_go():
    cut = [case["name"] for case in TRL["cases"] if bool((flat(case["gradient"]) == 0).any())]
    assert {"grpo", "dapo, clip higher", "gspo, grpo"} <= set(cut)
