"""Activations that wait elsewhere come back as they were: the same gradient to the bit, and memory that is not used."""

import gc

import pytest
import torch
from conftest import make_tiny
from tinyrun import loop_of, sequences_for
from training.test_resume import run_of, weights

from tunesmith.errors import RecipeError
from tunesmith.methods.full import Full
from tunesmith.methods.lora import LoRA
from tunesmith.model.offload import SMALL, File, Memory, Offload, elsewhere
from tunesmith.objectives.sft import SFT
from tunesmith.training.train import train

METHODS = {"lora": LoRA(r=4), "full": Full()}


def gradient(method, store=None, checkpointing=False):
    """A first gradient, and the offload that it went through."""
    loop = loop_of(make_tiny, method, SFT(), sequences_for(SFT()))
    offload = store and Offload(loop.policy.model, store)
    loop.policy.saving = offload or loop.policy.saving
    if checkpointing:
        loop.policy.model.activation_checkpointing_enable({"use_reentrant": False})
    loop.gradient(0)
    return torch.cat([weight.grad.flatten() for weight in loop.weights.values()]), loop


@pytest.mark.parametrize("checkpointing", [False, True], ids=["all", "checkpointed"])
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("kind", ["disk", "cpu"])
def test_the_gradient_is_the_same_to_the_bit(method, kind, checkpointing, tmp_path):
    store = File(tmp_path) if kind == "disk" else Memory()
    usual, _ = gradient(method, None, checkpointing)
    offloaded, _ = gradient(method, store, checkpointing)
    assert usual.any() and torch.equal(usual, offloaded)


def alive():
    """Every big tensor with a gradient's history that this process holds, whoever made it."""
    return [one for one in gc.get_objects() if type(one) is torch.Tensor and one.nbytes >= SMALL and one.grad_fn]


def test_what_is_put_away_is_all_but_weights_and_each_tensor_once(tmp_path):
    loop = loop_of(make_tiny, LoRA(r=4), SFT(), sequences_for(SFT()))
    store = File(tmp_path)
    loop.policy.saving = Offload(loop.policy.model, store)
    batch = loop.layout(loop.sequences)
    before = alive()  # of other tests in this process; held, so that no new tensor takes the place of one
    saved = loop.policy.states(batch)
    tokens, layers = batch.ids.numel(), 2
    # a block's inputs, normed and not, twice; queries, keys, values, what attention gives; gate, up, their product
    most = 4 * tokens * layers * (4 * 32 + 32 + 2 * 16 + 32 + 3 * 64) + 2 * 4 * tokens * 32
    assert 0.5 * most < store.written <= most
    held = [one for one in alive() if not any(one is other for other in before)]
    assert len(held) <= 2  # the states themselves
    saved.sum().backward()
    del saved, held, batch, before
    assert store.slots == 0 and store.end == 0


def test_a_run_on_the_disk_ends_in_the_same_weights(model_folder, reviews, tmp_path):
    for where in ("no", "disk"):
        run = run_of(model_folder, reviews, tmp_path / where, LoRA(r=4), SFT(), max_steps=3, activation_offload=where)
        train(run, quiet=True)
    assert weights(tmp_path / "no") == weights(tmp_path / "disk")
    assert elsewhere("no", make_tiny(), tmp_path) is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_taking_activations_out_of_no_gpu_is_refused(reviews, tmp_path):
    run = run_of(tmp_path / "no model", reviews, tmp_path / "run", LoRA(), SFT(), activation_offload="cpu")
    with pytest.raises(RecipeError, match="train.activation_offload: cpu takes activations out of a GPU, .*take disk"):
        train(run, quiet=True)
