"""Lean modules give the values and gradients of those that they stand in for."""

import gc
import weakref

import pytest
import torch
from conftest import make_tiny
from torch import nn

from tunesmith.model.lean import RECIPES, LeanGate, LeanNorm, make_lean, remaking, remember


def gradients(model, dtype=torch.float32):
    ids = torch.randint(3, 300, (2, 9), generator=torch.Generator().manual_seed(0))
    model(ids).logits.float().square().mean().backward()
    return {name: weight.grad for name, weight in model.named_parameters()}


def test_gradients_are_those_of_the_modules_before():
    plain, lean = make_tiny().double(), make_tiny().double()
    with torch.no_grad():
        for name, weight in plain.named_parameters():
            if "norm" in name:
                weight.normal_(1, 0.3, generator=torch.Generator().manual_seed(1))
        lean.load_state_dict(plain.state_dict())
    assert make_lean(lean) == 7 and make_lean(lean) == 0
    assert list(lean.state_dict()) == list(plain.state_dict())
    expected = gradients(plain)
    for name, got in gradients(lean).items():
        assert torch.allclose(got, expected[name], rtol=1e-5, atol=1e-8), name


class GELUGate(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = nn.Linear(4, 8), nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, x):
        return self.down_proj(nn.functional.gelu(self.gate_proj(x)) * self.up_proj(x))


class OffsetRMSNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.zeros(4)), 1e-6

    def forward(self, x):
        return x * (x.square().mean(-1, keepdim=True) + self.eps).rsqrt() * (1 + self.weight)


@pytest.mark.parametrize("kind", [GELUGate, OffsetRMSNorm])
def test_what_only_looks_alike_stays(kind):
    model = nn.Sequential(kind())
    assert make_lean(model) == 0
    assert isinstance(model[0], kind)


def test_less_is_kept_for_the_backward_pass():
    def kept(model):
        sizes = {}
        seen = lambda tensor: sizes.update({tensor.data_ptr(): tensor.numel()}) or tensor  # noqa: E731
        with torch.autograd.graph.saved_tensors_hooks(seen, lambda tensor: tensor):
            model(torch.arange(300)[None]).logits.sum()
        return sum(sizes.values())

    plain, lean = make_tiny(), make_tiny()
    make_lean(lean)
    assert any(isinstance(module, LeanNorm) for module in lean.modules())
    assert any(isinstance(module, LeanGate) for module in lean.modules())
    assert kept(lean) < 0.9 * kept(plain)


def test_what_is_made_again_is_not_kept_and_its_gradients_are_the_same():
    model = make_tiny().double()
    make_lean(model)
    expected = gradients(model)
    model.zero_grad()
    alive = []
    watch = lambda module, inputs, output: alive.append(weakref.ref(output))  # noqa: E731
    for module in model.modules():
        if isinstance(module, LeanNorm):
            module.register_forward_hook(watch)
    ids = torch.randint(3, 300, (2, 9), generator=torch.Generator().manual_seed(0))
    gc.collect()
    before = set(RECIPES)  # of other tests' tensors that live on
    with remaking():
        loss = model(ids).logits.float().square().mean()
    gc.collect()
    assert len(alive) == 5 and not any(made() is not None for made in alive)
    assert set(RECIPES) <= before
    loss.backward()
    for name, weight in model.named_parameters():
        assert torch.equal(weight.grad, expected[name]), name


def test_a_tensor_is_not_taken_for_one_that_lay_in_its_place():
    made = remember(torch.ones(1000, requires_grad=True) * 1, lambda: torch.full((1000,), 7.0))
    place = made.data_ptr()
    del made
    assert place not in RECIPES
