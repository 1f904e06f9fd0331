"""Layers that add up their own gradients come to what autograd comes to, and make nothing of that size besides."""

import pytest
import torch
from conftest import make_tiny
from torch import nn

from tunesmith.data.batch import pack
from tunesmith.data.rendering.render import Tokens
from tunesmith.model.learning import LearningEmbedding, LearningLinear, adding_up, make_learning
from tunesmith.model.policy import Policy

ROWS = [Tokens([7, 1, 9, 12, 1, 7], [True] * 6), Tokens([5, 8, 1], [True] * 3)]


def tied():
    model = make_tiny()
    model.lm_head.weight = model.model.embed_tokens.weight
    return model


def biased():
    import transformers as hf

    torch.manual_seed(0)
    return hf.GPTNeoXForCausalLM(
        hf.GPTNeoXConfig(
            vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
        )
    )


@pytest.mark.parametrize("make", [make_tiny, tied, biased])
def test_gradients_that_are_added_up_are_autograds(make):
    plain, ours = make().double(), make().double()
    make_learning(ours)
    kinds = {type(module) for module in ours.modules()}
    assert {LearningLinear, LearningEmbedding} <= kinds
    Policy(plain).logp(pack(ROWS)).token.square().sum().backward()
    for weight in ours.parameters():
        weight.grad = torch.full_like(weight, 0.5)
    where = [weight.grad.data_ptr() for weight in ours.parameters()]
    for _ in range(2):
        with adding_up():
            Policy(ours).logp(pack(ROWS)).token.square().sum().backward()
    assert where == [weight.grad.data_ptr() for weight in ours.parameters()]
    for (name, weight), own in zip(plain.named_parameters(), ours.parameters(), strict=True):
        assert torch.allclose(own.grad, 2 * weight.grad + 0.5, atol=1e-12), name


def test_elsewhere_autograd_hears_of_every_gradient():
    model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 3))
    make_learning(model)
    ids, weights = torch.tensor([[1, 2, 1]]), list(model.parameters())
    found = torch.autograd.grad(model(ids).square().sum(), weights)
    plain = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 3))
    plain.load_state_dict(model.state_dict())
    for got, expected in zip(
        found, torch.autograd.grad(plain(ids).square().sum(), list(plain.parameters())), strict=True
    ):
        assert torch.allclose(got, expected, atol=1e-6)


def test_a_gradient_is_not_made_a_second_time():
    layer = nn.Linear(300, 200, bias=False)
    make_learning(model := nn.Sequential(layer))
    layer.weight.grad = torch.zeros_like(layer.weight)
    calls = []
    layer.weight.register_hook(calls.append)
    loss = model(torch.randn(2, 300)).sum()
    with adding_up():
        loss.backward()
    assert layer.weight.grad.any() and calls in ([], [None])  # autograd was given nothing to add
