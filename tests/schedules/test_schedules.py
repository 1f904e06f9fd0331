"""Learning rates, against formulas of their own; resumed runs have them too."""

from math import ceil, cos, pi, sqrt

import pytest
import torch
from conftest import make_tiny
from tinyrun import loop_of, sequences_for

from tunesmith.config.load import load
from tunesmith.errors import RecipeError
from tunesmith.methods.full import Full
from tunesmith.migrate import RENAMED
from tunesmith.objectives.sft import SFT
from tunesmith.optimizers.base import optimizer
from tunesmith.run import Run, Train
from tunesmith.schedules.base import schedule
from tunesmith.training import checkpoint
from tunesmith.training.optim import schedule as over

TOTAL, WARMUP, PEAK = 40, 4, 0.01


def rates(name: str, warmup: float = WARMUP, **options) -> list[float]:
    entry = schedule[name](**options)
    settings = Train(learning_rate=PEAK, lr_scheduler_type=entry, warmup_steps=warmup)
    entry.refuse(settings)
    made = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    told = over(settings, made, TOTAL)
    found = []
    for _ in range(TOTAL):
        found.append(told.get_last_lr()[0] / PEAK)
        made.step()
        told.step()
    return found


def left(step: int) -> float:
    """The share of the run, warmup aside, that is over."""
    return (step - WARMUP) / (TOTAL - WARMUP)


def wsd(step, decay=4, low=0.0, fall=lambda done: 0.5 * (1 + cos(pi * done))):
    begins = TOTAL - decay
    return 1.0 if step < begins else low + (1 - low) * fall((step - begins) / decay)


EXPECTED = [
    ("linear", {}, lambda step: 1 - left(step)),
    ("cosine", {}, lambda step: 0.5 * (1 + cos(pi * left(step)))),
    ("cosine", {"num_cycles": 1.5}, lambda step: 0.5 * (1 + cos(3 * pi * left(step)))),
    ("cosine_with_restarts", {"num_cycles": 3}, lambda step: 0.5 * (1 + cos(pi * (3 * left(step) % 1)))),
    ("cosine_with_min_lr", {"min_lr": 0.002}, lambda step: 0.2 + 0.8 * 0.5 * (1 + cos(pi * left(step)))),
    ("cosine_with_min_lr", {"min_lr_rate": 0.3}, lambda step: 0.3 + 0.7 * 0.5 * (1 + cos(pi * left(step)))),
    ("cosine_with_min_lr", {}, lambda step: 0.1 + 0.9 * 0.5 * (1 + cos(pi * left(step)))),
    ("constant_with_warmup", {}, lambda step: 1.0),
    ("polynomial", {"power": 2.0, "lr_end": 1e-3}, lambda step: 0.1 + 0.9 * (1 - left(step)) ** 2),
    ("inverse_sqrt", {}, lambda step: sqrt(WARMUP / step)),
    ("inverse_sqrt", {"timescale": 9}, lambda step: sqrt(9 / (step + 9 - WARMUP))),
    ("warmup_stable_decay", {}, wsd),
    ("warmup_stable_decay", {"num_decay_steps": 10, "min_lr_ratio": 0.2}, lambda step: wsd(step, 10, 0.2)),
    ("warmup_stable_decay", {"decay_type": "linear"}, lambda step: wsd(step, fall=lambda done: 1 - done)),
    ("warmup_stable_decay", {"decay_type": "1-sqrt"}, lambda step: wsd(step, fall=lambda done: 1 - sqrt(done))),
]


@pytest.mark.parametrize(
    ("name", "options", "formula"), EXPECTED, ids=lambda value: "" if callable(value) else str(value)[:40]
)
def test_rates_follow_their_formula(name, options, formula):
    found = rates(name, **options)
    assert found[WARMUP:] == pytest.approx([formula(step) for step in range(WARMUP, TOTAL)], abs=1e-9)
    low = options.get("min_lr_ratio", 0.0)
    assert found[:WARMUP] == pytest.approx([low + (1 - low) * step / WARMUP for step in range(WARMUP)])


def test_a_warmup_may_begin_above_nothing():
    found = rates("cosine_warmup_with_min_lr", warmup_lr_rate=0.4)
    assert found[:WARMUP] == pytest.approx([0.4, 0.6, 0.8, 1.0])
    assert rates("cosine_warmup_with_min_lr")[:WARMUP] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert found[-1] == pytest.approx(0.1) and rates("cosine_warmup_with_min_lr", min_lr_rate=0.5)[-1] == 0.5


@pytest.mark.parametrize(
    ("kind", "formula"), [("cosine", lambda d: 0.5 * (1 - cos(pi * d))), ("1-sqrt", lambda d: 1 - sqrt(1 - d))]
)
def test_a_plateau_is_reached_as_told(kind, formula):
    found = rates("warmup_stable_decay", warmup=0.25, warmup_type=kind)
    assert found[:10] == pytest.approx([formula(step / ceil(0.25 * TOTAL)) for step in range(10)])


def test_every_schedule_is_tried_here():
    assert set(schedule.all()) == {name for name, *_ in EXPECTED} | {"constant", "cosine_warmup_with_min_lr"}
    assert rates("constant") == [1.0] * TOTAL


@pytest.mark.parametrize("name", schedule.all())
def test_a_resumed_run_has_the_rates_that_it_would_have_had(name, tmp_path):
    def begun():
        settings = {"lr_scheduler_type": schedule[name](), "warmup_steps": 2, "max_steps": 8, "optim": muon}
        return loop_of(make_tiny, Full(), SFT(), sequences_for(SFT()), **settings)

    muon = optimizer["muon"]()  # two optimizers in one: both must hear of it
    whole = [step.learning_rate for step in begun().fit()]
    first = begun()
    steps = first.fit()
    for _ in range(3):
        next(steps)
    place = checkpoint.write(tmp_path, 3, checkpoint.state(first), {}, None)
    again = begun()
    checkpoint.load(place, again, {})
    assert [step.learning_rate for step in again.fit(3)] == whole[3:]
    heard = [[group["lr"] for group in part.param_groups] for part in again.optimizer.parts]
    assert len(heard) == 2 and len({rate for groups in heard for rate in groups}) == 1


def said(*words: str) -> str:
    with pytest.raises(RecipeError) as refused:
        load(Run, None, ["model.path=a", "data.path=b", *words], renamed=RENAMED)
    return str(refused.value)


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("train.lr_scheduler_type=wsd", "train.lr_scheduler_type: wsd is called warmup_stable_decay here"),
        ("train.lr_scheduler_type=reduce_lr_on_plateau", "is not offered: rates follow from a step's number alone"),
        ("train.lr_scheduler_type=cosin", "no such schedule 'cosin'; did you mean 'cosine'?"),
        ("train.lr_scheduler_kwargs.num_cycles=2", "train.lr_scheduler_type: {name: polynomial, power: 2}"),
        ("train.optim=lomo", "train.optim: lomo is sgd with train.optimizer_in_backward=true here"),
        ("train.optim=adamw_hf", "adamw_hf is called adamw_torch here"),
        ("train.optim=adamw_trch", "no such optimizer 'adamw_trch'; did you mean 'adamw_torch'?"),
        ("train.optim.rank=3", "is an option of train.optim="),
    ],
)
def test_other_names_are_answered(word, sentence):
    assert sentence in said(word)


def test_every_name_of_transformers_is_offered_or_answered():
    from transformers.trainer_utils import SchedulerType
    from transformers.training_args import OptimizerNames

    answered = {key.partition("=")[2] for key in RENAMED if key.startswith("train.")}
    assert {one.value for one in OptimizerNames} <= optimizer.all().keys() | answered
    assert {one.value for one in SchedulerType} <= schedule.all().keys() | answered


@pytest.mark.parametrize("name", optimizer.all())
def test_a_name_is_enough_to_choose_an_optimizer(name):
    assert load(Run, None, ["model.path=a", "data.path=b", f"train.optim={name}"]).value.train.optim.name == name


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("polynomial", {"lr_end": 1.0}, "lr_end: 1 must be less than train.learning_rate, 0.01"),
        ("cosine_with_min_lr", {"min_lr": 0.001, "min_lr_rate": 0.1}, "leave one of them out"),
        ("cosine_with_min_lr", {"min_lr": 0.1}, "min_lr: 0.1 must be at most train.learning_rate, 0.01"),
        ("warmup_stable_decay", {"num_decay_steps": 38}, "38 and 4 of warmup are more than the run's 40 steps"),
        ("warmup_stable_decay", {"decay_type": "linear", "num_cycles": 1.0}, "num_cycles: is for decay_type=cosine"),
    ],
)
def test_what_cannot_be_is_refused(name, options, sentence):
    with pytest.raises(RecipeError, match=sentence):
        rates(name, **options)
