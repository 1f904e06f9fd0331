"""Each loss over preferences is its paper's formula, written here a second time, and TRL's on the same numbers."""

import json
from dataclasses import dataclass
from math import exp, isfinite, log
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import get_args

import pytest
import torch

from tunesmith.errors import RecipeError
from tunesmith.objectives._losses import LOSSES
from tunesmith.objectives.base import LogProbs, objective
from tunesmith.objectives.dpo import DPO, LossType

TRL = json.loads(Path(__file__).with_name("preference.json").read_text(encoding="utf-8"))
NEEDS = {"robust": 0.1, "exo_pair": 0.1}
"""Losses that are nothing without label_smoothing, and how much they get here."""


def judged(aim, token, reference, kl=0.0):
    """What an objective makes of answers' tokens, given as lists, as the loop would ask it: the mean, and its slope by
    each token."""
    owner = torch.tensor([n for n, row in enumerate(token) for _ in row])
    flat = torch.tensor([one for row in token for one in row], dtype=torch.float64, requires_grad=True)
    before = LogProbs(torch.tensor([one for row in reference for one in row], dtype=torch.float64), owner, len(token))
    now = LogProbs(flat, owner, len(token))
    batch = SimpleNamespace(label=torch.tensor(TRL["liked"]).long())
    looks = {"logp": now, "reference": before} if "reference" in aim.looks() else {"logp": now}
    given = {"baseline": kl} if aim.asks("baseline") else {}
    if aim.asks("partners"):
        given["partners"] = aim.match(aim.values(batch, now, before).detach())
    loss = aim.loss(batch, **looks, **given)
    mean = loss.sum / loss.count
    mean.backward()
    return float(mean.detach()), flat.grad


def made(aim: str, options: dict):
    """An objective with the options of a recipe; of the terms that TRL has elsewhere, none."""
    return objective[aim](**{key: tuple(one) if isinstance(one, list) else one for key, one in options.items()})


@pytest.mark.parametrize("case", TRL["cases"], ids=[case["name"] for case in TRL["cases"]])
def test_values_and_gradients_are_those_of_trl(case):
    value, slope = judged(made(case["objective"], case["options"]), TRL["token"], TRL["reference"], TRL["kl"])
    expected = torch.tensor([one for row in case["gradient"] for one in row], dtype=torch.float64)
    if case["objective"] == "orpo":  # TRL's own part of it; the other is to say the better answer
        value += fmean(fmean(row) for row in TRL["token"][::2])
        told = [
            [1 / len(row) / (len(TRL["token"]) // 2) * (n % 2 == 0)] * len(row) for n, row in enumerate(TRL["token"])
        ]
        slope = slope + torch.tensor([one for row in told for one in row], dtype=torch.float64)
    assert value == pytest.approx(case["value"], abs=1e-5)
    assert torch.allclose(slope, expected, atol=1e-5)
    assert expected.any()


# the papers' formulas, with nothing but numbers


def sigma(x: float) -> float:
    return 1 / (1 + exp(-x))


@dataclass
class Two:
    """A pair's answers, the better `w` and the worse `l`, by the names of the papers."""

    n: int
    beta: float
    eps: float

    def __post_init__(self):
        token, reference = TRL["token"][2 * self.n :][:2], TRL["reference"][2 * self.n :][:2]
        self.w, self.low = map(sum, token)
        self.mean_w, self.mean_low = map(fmean, token)
        before, before_low = map(sum, reference)
        self.up, self.down = self.w - before, self.low - before_low
        self.mean_gap = self.mean_w - fmean(reference[0]) - (self.mean_low - fmean(reference[1]))
        self.gap, self.gap_before = self.w - self.low, before - before_low
        ratio = exp(self.beta * self.up) / exp(self.beta * self.down)
        self.chance = ratio / (1 + ratio)  # of winning, by Bradley and Terry
        self.share = sigma(self.beta * (self.up - self.down) / 0.05)
        self.odds = [exp(mean) / (1 - exp(mean)) for mean in (self.mean_w, self.mean_low)]


OF_PAIR = {
    "sigmoid": lambda p: -log(p.chance),
    "sigmoid_norm": lambda p: -log(sigma(p.beta * p.mean_gap)),
    "hinge": lambda p: max(0.0, 1 - p.beta * (p.up - p.down)),
    "ipo": lambda p: (p.mean_gap - 0.5 / p.beta) ** 2,
    "robust": lambda p: (-(1 - p.eps) * log(p.chance) + p.eps * log(1 - p.chance)) / (1 - 2 * p.eps),
    "exo_pair": lambda p: p.chance * log(p.chance / (1 - p.eps)) + (1 - p.chance) * log((1 - p.chance) / p.eps),
    "nca_pair": lambda p: -log(sigma(p.beta * p.up)) - (log(sigma(-p.beta * p.up)) + log(sigma(-p.beta * p.down))) / 2,
    "bco_pair": lambda p: -log(sigma(p.beta * p.up)) - log(sigma(-p.beta * p.down)),
    "sppo_hard": lambda p: (p.up - 1 / (2 * p.beta)) ** 2 + (p.down + 1 / (2 * p.beta)) ** 2,
    "apo_zero": lambda p: 1 - sigma(p.beta * p.up) + sigma(p.beta * p.down),  # the paper's, moved up by one
    "apo_down": lambda p: 1 + sigma(p.beta * p.up) - sigma(p.beta * p.up - p.beta * p.down),
    "discopop": lambda p: (
        (1 - p.share) * log(1 + exp(-p.beta * (p.up - p.down))) + p.share * exp(-p.beta * (p.up - p.down))
    ),
    "sft": lambda p: -p.mean_w,
    "simpo": lambda p: -log(sigma(2.0 * p.mean_w - 2.0 * p.mean_low - 1.0)),
    "cpo": lambda p: -log(sigma(p.beta * p.w - p.beta * p.low)) - p.mean_w,
    "orpo": lambda p: -p.mean_w - p.beta * log(sigma(log(p.odds[0] / p.odds[1]))),
}


def formula(name: str, beta: float, eps: float) -> float:
    """A loss's mean over all pairs."""
    pairs = [Two(n, beta, eps) for n in range(len(TRL["token"]) // 2)]
    if name in OF_PAIR:
        return fmean(map(OF_PAIR[name], pairs))
    upper = sorted(p.gap if name == "aot" else p.up for p in pairs)
    lower = sorted(p.gap_before if name == "aot" else p.down for p in pairs)
    return fmean(-log(sigma(beta * (above - below))) for above, below in zip(upper, lower, strict=True))


def kto(beta: float, kl: float) -> float:
    found = []
    for token, reference, liked in zip(TRL["token"], TRL["reference"], TRL["liked"], strict=True):
        gain = sum(token) - sum(reference)
        found.append(1 - sigma(beta * (gain - kl)) if liked else 1 - sigma(beta * (kl - gain)))
    return fmean(found)


@pytest.mark.parametrize("name", [*LOSSES, "simpo", "cpo", "orpo"])
def test_values_and_gradients_are_those_of_the_paper(name):
    eps = NEEDS.get(name, 0.0)
    aim = DPO(loss_type=name, label_smoothing=eps) if name in LOSSES else objective[name]()
    value, slope = judged(aim, TRL["token"], TRL["reference"])
    assert value == pytest.approx(formula(name, 0.1, eps), abs=1e-9)
    assert slopes_agree(slope, lambda: formula(name, 0.1, eps))


def test_values_and_gradients_of_kto_are_those_of_the_paper():
    value, slope = judged(objective["kto"](), TRL["token"], TRL["reference"], 0.35)
    assert value == pytest.approx(kto(0.1, 0.35), abs=1e-9)
    assert slopes_agree(slope, lambda: kto(0.1, 0.35))
    assert judged(objective["kto"](), TRL["token"], TRL["reference"], -2.0)[0] == pytest.approx(kto(0.1, 0.0))


def slopes_agree(slope, compute, step: float = 1e-6) -> bool:
    """Whether a gradient is what the formula does when each token in turn is moved a little."""
    found = []
    for row in TRL["token"]:
        for n, kept in enumerate(row):
            ends = []
            for moved in (kept + step, kept - step):
                row[n] = moved
                ends.append(compute())
            row[n] = kept
            found.append((ends[0] - ends[1]) / (2 * step))
    assert any(found)
    return torch.allclose(slope, torch.tensor(found, dtype=torch.float64), atol=1e-5, rtol=1e-4)


def test_another_name_is_another_loss():
    names = [*LOSSES, "simpo", "cpo", "orpo"]
    aims = [DPO(loss_type=n, label_smoothing=NEEDS.get(n, 0.0)) if n in LOSSES else objective[n]() for n in names]
    values = {name: judged(aim, TRL["token"], TRL["reference"]) for name, aim in zip(names, aims, strict=True)}
    slopes = {name: slope for name, (_, slope) in values.items()}
    for at, one in enumerate(names):
        for other in names[:at]:
            assert not torch.allclose(slopes[one], slopes[other], atol=1e-4), f"{one} is {other}"


def test_every_name_of_a_loss_has_one():
    assert set(get_args(LossType)) == set(LOSSES)


def test_several_losses_add_up_by_their_weights():
    def value(**options):
        return judged(DPO(**options), TRL["token"], TRL["reference"])[0]

    alone = {name: value(loss_type=name) for name in ("sigmoid", "hinge", "sft")}
    both = value(loss_type=("sigmoid", "hinge", "sft"), loss_weights=(0.5, 2.0, 0.1))
    assert both == pytest.approx(0.5 * alone["sigmoid"] + 2 * alone["hinge"] + 0.1 * alone["sft"])
    assert value(loss_type=("sigmoid", "hinge")) == pytest.approx(alone["sigmoid"] + alone["hinge"])


ODDS = {
    "dpo": {}, "dpo, a token at a time": {"loss_type": "sigmoid_norm"}, "simpo": {"simpo_gamma": 0.0},
    "cpo": {"cpo_alpha": 0.0},
}  # fmt: skip


@pytest.mark.parametrize("name", ODDS)
def test_odds_are_what_the_loss_takes_for_them(name):
    owner = torch.tensor([n for n, row in enumerate(TRL["token"]) for _ in row])
    now, before = (
        LogProbs(torch.tensor([one for row in TRL[what] for one in row]), owner, len(TRL["token"]))
        for what in ("token", "reference")
    )
    aim = objective[name.partition(",")[0]](**ODDS[name])
    looks = {"logp": now} | ({"reference": before} if "reference" in aim.looks() else {})
    odds = aim.odds(None, **looks, entropy=now.token)
    assert float(-odds.sigmoid().log().sum()) == pytest.approx(float(aim.loss(None, **looks).sum), rel=1e-5)
    assert DPO(loss_type="ipo").odds(None, now, before) is None


def test_beta_goes_to_its_end_in_a_straight_line():
    owner = torch.tensor([0, 1])
    looks = [LogProbs(torch.tensor(rows), owner, 2) for rows in ([-1.0, -2.0], [-1.5, -1.0])]
    found = [float(DPO(beta=0.1, beta_end=0.5).loss(None, *looks, progress=at).sum) for at in (0.0, 0.5, 1.0)]
    assert found == pytest.approx([float(DPO(beta=beta).loss(None, *looks).sum) for beta in (0.1, 0.3, 0.5)])


def test_orpo_of_an_answer_that_is_certain_is_a_number():
    owner = torch.tensor([0, 1])
    logp = LogProbs(torch.tensor([0.0, -1.0], requires_grad=True), owner, 2)
    loss = objective["orpo"]().loss(None, logp)
    loss.sum.backward()
    assert isfinite(float(loss.sum.detach())) and bool(logp.token.grad.isfinite().all())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"loss_type": "robust"}, "objective.label_smoothing: robust needs"),
        ({"loss_type": ("sigmoid", "exo_pair")}, "objective.label_smoothing: exo_pair needs"),
        ({"loss_type": "hinge", "label_smoothing": 0.1}, "objective.label_smoothing: hinge makes nothing of it"),
        ({"loss_type": "hinge", "discopop_tau": 0.1}, "objective.discopop_tau: hinge makes nothing of it"),
        ({"loss_type": "sft", "beta_end": 0.2}, "objective.beta_end: sft makes nothing of beta"),
        ({"loss_type": ("sigmoid", "sft"), "loss_weights": (1.0,)}, "objective.loss_weights: 1 weights for 2 losses"),
        ({"loss_type": ()}, "objective.loss_type: names no loss"),
    ],
)
def test_options_that_come_to_nothing_are_refused(options, said):
    with pytest.raises(RecipeError, match=said):
        DPO(**options).refuse()
