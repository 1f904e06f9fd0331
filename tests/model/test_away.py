"""Weights that wait on the disk: the same loss and gradient, and memory that is given back."""

import pytest
import torch
from conftest import make_tiny
from tinyrun import loop_of, sequences_for
from training.test_resume import run_of, weights

from tunesmith.errors import RecipeError
from tunesmith.methods.bottleneck import Bottleneck
from tunesmith.methods.full import Full
from tunesmith.methods.lora import LoRA
from tunesmith.methods.prefix_tuning import PrefixTuning
from tunesmith.model.away import GB, Away, place
from tunesmith.model.load import attach
from tunesmith.objectives.sft import SFT
from tunesmith.training.doctor import stir
from tunesmith.training.train import train

CPU = torch.device("cpu")
METHODS = {"lora": LoRA(r=4), "bottleneck": Bottleneck(bottleneck_size=8), "prefix": PrefixTuning(num_virtual_tokens=3)}


def held(model):
    return sum(one.nbytes for one in model.parameters() if one.device.type != "meta")


@pytest.mark.parametrize("bias", [False, True], ids=["plain", "biased"])
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_loss_and_gradient_are_those_of_weights_in_memory(method, bias):
    found = []
    for away in (False, True):
        loop = loop_of(lambda: make_tiny(attention_bias=bias), method, SFT(), sequences_for(SFT()))
        if away:
            size = held(loop.policy.model)
            place(loop.policy.model, (size - 30000) / GB, CPU, lambda _: None)
            assert size - 30000 - 8193 < held(loop.policy.model) <= size - 30000  # a layer is 8 kB at most
        stir(loop.weights)
        tallies, _ = loop.gradient(0)
        slopes = torch.cat([weight.grad.flatten() for weight in loop.weights.values()])
        found.append((tallies["loss"].mean(), slopes))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-6)
    assert found[0][1].any() and torch.allclose(found[0][1], found[1][1], atol=1e-5)


def test_the_first_blocks_go_first_and_only_as_many_as_must(tmp_path):
    said = []
    model = place(attach(make_tiny(), LoRA(r=4)), 1.0, CPU, said.append)
    assert said == [] and not any(isinstance(one, Away) for one in model.modules())
    size = held(model)
    place(model, (size - 4 * 32 * 32) / GB, CPU, said.append)
    gone = [name for name, one in model.named_modules() if isinstance(one, Away)]
    assert gone == ["base_model.model.model.layers.0.self_attn.q_proj.base_layer"]
    assert said == ["weights: 1 layers wait on the disk"]


def test_a_run_that_may_hold_less_learns_the_same(model_folder, reviews, tmp_path):
    from dataclasses import replace

    for name, most in (("all", None), ("less", 0.00014)):
        run = run_of(model_folder, reviews, tmp_path / name, LoRA(r=4), SFT(), max_steps=3)
        train(replace(run, model=replace(run.model, max_memory=most)), quiet=True)
    from safetensors.torch import load_file

    one, other = (load_file(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in ("all", "less"))
    assert one.keys() == other.keys() and weights(tmp_path / "less")
    assert all(torch.allclose(one[name], other[name], atol=1e-4) for name in one)


REFUSED = {
    "too little": (LoRA(r=4), 1e-5, "max_memory: 1e-05 GB are less than the 0.000.* GB that must stay"),
    "weights looked at": (LoRA(r=4, use_dora=True), 1.3e-4, "max_memory: this method looks at weights themselves"),
}


@pytest.mark.parametrize(("method", "most", "says"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_refused(method, most, says):
    with pytest.raises(RecipeError, match=says):
        place(attach(make_tiny(), method), most, CPU, lambda _: None)


def test_weights_that_learn_stay(reviews, tmp_path):
    from dataclasses import replace

    run = run_of(tmp_path / "none", reviews, tmp_path / "run", Full(), SFT())
    with pytest.raises(RecipeError, match="model.max_memory: full trains or changes weights, .* take lora"):
        train(replace(run, model=replace(run.model, max_memory=1.0)), quiet=True)
