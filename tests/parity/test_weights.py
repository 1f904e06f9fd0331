"""Tokens that count differently: the gradient is that of a weighted cross-entropy written out by hand."""

import copy
from dataclasses import replace

import pytest
import torch
from tinyrun import loop_of, sequences_for

from tunesmith.data.batch import pack, pad, share
from tunesmith.methods.full import Full
from tunesmith.objectives.sft import SFT

WEIGHTS = [0.25, 1.0, 3.0, 0.5]


def weighted(sequences, scale=1.0):
    """Every other sequence with weights, so that a batch mixes both kinds."""
    return [
        replace(tokens, weights=[scale * WEIGHTS[at % 4] * learn for at, learn in enumerate(tokens.learn)])
        if n % 2
        else tokens
        for n, tokens in enumerate(sequences)
    ]


def by_hand(model, sequences):
    """Sum of weight * cross-entropy over the sum of weights, one sequence at a time."""
    total, count = 0, 0
    for tokens in sequences:
        ids = torch.tensor([tokens.ids])
        losses = torch.nn.functional.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:], reduction="none")
        each = torch.tensor([float(learn) for learn in tokens.learn] if tokens.weights is None else tokens.weights)[1:]
        total, count = total + (losses * each).sum(), count + float(each.sum())
    (total / count).backward()
    return float(total.detach()) / count, {name: weight.grad for name, weight in model.named_parameters()}


@pytest.mark.parametrize("scale", [1.0, 0.001], ids=["", "the sum of a step's weights below one"])
@pytest.mark.parametrize("layout", [pad, pack, share])
def test_the_gradient_is_that_of_a_weighted_cross_entropy(tiny, layout, scale):
    sequences = weighted(sequences_for(SFT()), scale)
    if scale < 1:
        sequences = [tokens for tokens in sequences if tokens.weights]
    settings = {
        "per_device_train_batch_size": len(sequences) // 2,
        "gradient_accumulation_steps": 2,
        "max_grad_norm": 0,
    }
    loop = loop_of(tiny, Full(), SFT(), sequences, layout, train_sampling_strategy="sequential", **settings)
    expected, gradients = by_hand(copy.deepcopy(loop.policy.model), sequences)
    tallies, _ = loop.gradient(0)
    loop.divide(float(tallies["loss"].count))
    assert tallies["loss"].mean() == pytest.approx(expected, abs=1e-5)
    for name, gradient in gradients.items():
        assert torch.allclose(loop.weights[name].grad, gradient, atol=1e-5), name


def test_weights_of_one_are_no_weights(tiny):
    plain = sequences_for(SFT())
    ones = [replace(tokens, weights=[float(learn) for learn in tokens.learn]) for tokens in plain]
    found = []
    for sequences in (plain, ones):
        loop = loop_of(tiny, Full(), SFT(), sequences, per_device_train_batch_size=8)
        tallies, _ = loop.gradient(0)
        found.append((tallies["loss"].mean(), [weight.grad for weight in loop.weights.values()]))
    assert found[0][0] == found[1][0]
    assert all(torch.equal(one, other) for one, other in zip(*(grads for _, grads in found), strict=True))
