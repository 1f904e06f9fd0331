"""The optimizer in the backward pass takes the steps that it takes after it, and no gradient lives on."""

import pytest
import torch
from conftest import make_tiny
from tinyrun import OFFLINE, loop_of, sequences_for
from training.test_resume import StopsAfter, run_of, weights

from tunesmith.errors import Diverged, RecipeError, Stopped
from tunesmith.methods.full import Full
from tunesmith.methods.lora import LoRA
from tunesmith.model.load import attach
from tunesmith.objectives.base import objective
from tunesmith.objectives.sft import SFT
from tunesmith.training.train import resume, train

EARLY = {"optimizer_in_backward": True, "max_grad_norm": 0}


def tied(labels=0):
    model = make_tiny(labels)
    if not labels:
        model.lm_head.weight = model.model.embed_tokens.weight
    return model


@pytest.mark.parametrize("aim", OFFLINE)
@pytest.mark.parametrize("make", [make_tiny, tied], ids=["apart", "tied"])
@pytest.mark.parametrize("method", [Full(), LoRA()], ids=["full", "lora"])
def test_steps_are_the_same(make, method, aim):
    judge = objective[aim]()
    settings = {"learning_rate": 1e-2, "per_device_train_batch_size": 4, "num_train_epochs": 2, "weight_decay": 0.1}
    after = loop_of(make, method, judge, sequences_for(judge), **settings, max_grad_norm=0)
    early = loop_of(make, method, judge, sequences_for(judge), **settings, **EARLY)
    for one, other in zip(after.fit(), early.fit(), strict=True):
        assert other.loss == pytest.approx(one.loss, abs=1e-5)
        assert other.grad_norm == pytest.approx(one.grad_norm, rel=1e-4)
    for name, weight in after.weights.items():
        assert torch.allclose(early.weights[name], weight, atol=1e-5), name
    assert all(weight.grad is None for weight in early.weights.values())


def test_gradients_are_dropped_one_by_one():
    loop = loop_of(make_tiny, Full(), SFT(), sequences_for(SFT()), **EARLY)
    alive = []
    step = loop.optimizer_step.step

    def watched(*words):
        alive.append(sum(weight.grad is not None for weight in loop.weights.values()))
        return step(*words)

    loop.optimizer_step.step = watched
    next(loop.fit())
    assert max(alive[:-1]) == 1 and len(alive) == len(loop.weights) + 1  # and one of none, after the pass


def test_a_loss_that_is_no_number_changes_nothing():
    loop = loop_of(make_tiny, Full(), SFT(), sequences_for(SFT()), **EARLY)
    with torch.no_grad():
        loop.policy.bare.model.layers[0].mlp.up_proj.weight[0, 0] = float("nan")
    before = {name: weight.detach().clone() for name, weight in loop.weights.items()}
    with pytest.raises(Diverged, match="the step was not taken"):
        next(loop.fit())
    assert all(torch.equal(weight.nan_to_num(), before[name].nan_to_num()) for name, weight in loop.weights.items())


def test_stopped_and_resumed_equals_uninterrupted(model_folder, reviews, tmp_path):
    train(run_of(model_folder, reviews, tmp_path / "whole", Full(), SFT(), **EARLY), quiet=True)
    with pytest.raises(Stopped):
        train(run_of(model_folder, reviews, tmp_path / "parts", Full(), SFT(), **EARLY), [StopsAfter(3)], quiet=True)
    resume(tmp_path / "parts", quiet=True)
    assert weights(tmp_path / "whole") == weights(tmp_path / "parts")


@pytest.mark.parametrize(
    ("setting", "mend"),
    [
        ({"max_grad_norm": 1.0}, "set train.max_grad_norm=0"),
        ({"gradient_accumulation_steps": 2}, "set train.gradient_accumulation_steps=1"),
        ({"on_nan": "skip"}, "set train.on_nan=stop"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_does_not_go_with_it_is_refused(model_folder, reviews, tmp_path, setting, mend):
    run = run_of(model_folder, reviews, tmp_path / "run", Full(), SFT(), **(EARLY | setting))
    with pytest.raises(RecipeError, match=f"train.optimizer_in_backward .*{mend}"):
        train(run, quiet=True)
    assert not (tmp_path / "run").exists()


def test_the_layers_are_those_that_add_up_gradients_elsewhere():
    kinds = {type(module).__name__ for module in attach(make_tiny(), Full()).modules()}
    assert {"LearningLinear", "LearningEmbedding"} <= kinds
