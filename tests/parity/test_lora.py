"""The fast way through a LoRA layer gives what PEFT's own gives."""

import pytest
import torch
from conftest import make_tiny

from tunesmith.methods._lora_linear import LoRALinear
from tunesmith.methods.lora import LoRA
from tunesmith.model.load import attach


def trained(method, dropout_off=False, numbers=torch.float32):
    torch.manual_seed(0)
    model = attach(make_tiny().to(numbers), method)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.normal_(0, 0.1)
    if dropout_off:
        model.eval()
    ids = torch.randint(3, 300, (2, 9), generator=torch.Generator().manual_seed(0))
    logits = model(ids).logits
    logits.square().mean().backward()
    return logits.detach(), {name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad}


@pytest.mark.parametrize("targets", ["all-linear", ("q_proj", "v_proj")])
def test_values_and_gradients_are_those_of_peft(targets):
    expected, theirs = trained(LoRA(r=4, target_modules=targets, fast=False))
    got, ours = trained(LoRA(r=4, target_modules=targets))
    assert torch.allclose(got, expected, atol=1e-6)
    assert ours.keys() == theirs.keys()
    for name, gradient in ours.items():
        assert torch.allclose(gradient, theirs[name], rtol=1e-4, atol=1e-8), name


def test_over_16_bits_an_adapter_in_32_is_rounded_as_they_are():
    """Values and gradients are those of PEFT, which computes its part in 32 bits, but for that; who asks hears what is
    learnt from."""
    (expected, theirs), (got, ours) = (trained(LoRA(r=4, fast=fast), numbers=torch.bfloat16) for fast in (False, True))
    assert got.dtype == torch.bfloat16 and (got - expected).norm() < 0.01 * expected.norm()
    for name, gradient in ours.items():
        assert gradient.dtype == torch.float32
        assert (gradient - theirs[name]).norm() < 0.03 * theirs[name].norm(), name
    layer = next(one for one in attach(make_tiny().bfloat16(), LoRA(r=4)).modules() if isinstance(one, LoRALinear))
    layer.lora_B["default"].weight.data.normal_()
    states = torch.randn(3, 7, layer.in_features, dtype=torch.bfloat16)
    learnt = layer(states)
    with torch.no_grad():
        assert torch.equal(layer(states), learnt)


def test_over_16_bits_no_state_is_kept_in_32():
    model = attach(make_tiny().bfloat16(), LoRA(r=4))
    layer = next(one for one in model.modules() if isinstance(one, LoRALinear))
    kept = []
    states = torch.randn(50, layer.in_features, dtype=torch.bfloat16, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda one: kept.append(one) or one, lambda one: one):
        layer(states)
    assert {one.dtype for one in kept} == {torch.bfloat16} and sum(len(one) == 50 for one in kept) == 2  # and x A^T


def test_dropout_drops_the_same_inputs_forward_and_backward():
    from tunesmith.methods._lora_linear import Update

    torch.manual_seed(0)
    shapes = {"x": (3, 6, 5), "weight": (4, 5), "bias": (4,), "a": (2, 5), "b": (4, 2)}
    made = {name: torch.randn(shape, dtype=torch.float64, requires_grad=True) for name, shape in shapes.items()}
    keep = torch.rand(3, 6, 5) < 0.7

    def plain(x, weight, bias, a, b):
        return torch.nn.functional.linear(x, weight, bias) + 1.5 * (x * keep / 0.7) @ a.T @ b.T

    inputs = tuple(made.values())
    got = Update.apply(*inputs, 1.5, keep, 0.7)
    assert torch.allclose(got, plain(*inputs))
    learning = [made[name] for name in ("x", "a", "b")]
    upstream = torch.randn_like(got)
    for ours, theirs in zip(
        torch.autograd.grad(got, learning, upstream),
        torch.autograd.grad(plain(*inputs), learning, upstream),
        strict=True,
    ):
        assert torch.allclose(ours, theirs)


def test_a_share_of_the_inputs_is_dropped_in_training_alone():
    method = LoRA(r=4, lora_dropout=0.5)
    dropped, _ = trained(method)
    kept, _ = trained(method, dropout_off=True)
    plain, _ = trained(LoRA(r=4))
    assert torch.allclose(kept, plain, atol=1e-6)
    assert not torch.allclose(dropped, plain, atol=1e-3)
