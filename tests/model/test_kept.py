"""Kept states give the gradients that a whole forward pass gives, and are kept only where they cannot change."""

import pytest
import torch
from conftest import make_tiny
from tinyrun import OFFLINE, loop_of, sequences_for

from tunesmith.methods.freeze import Freeze
from tunesmith.methods.full import Full
from tunesmith.methods.lora import LoRA
from tunesmith.model.kept import constant_blocks, keep
from tunesmith.objectives.base import objective
from tunesmith.objectives.sft import SFT
from tunesmith.optimizers.sgd import SGD


def gpt2(labels=0):
    import transformers as hf

    torch.manual_seed(0)
    config = hf.GPT2Config(vocab_size=384, n_embd=32, n_layer=3, n_head=4, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0)
    config.num_labels, config.pad_token_id = labels or 2, 0
    return hf.GPT2ForSequenceClassification(config) if labels else hf.GPT2LMHeadModel(config)


@pytest.mark.parametrize("make", [make_tiny, gpt2])
@pytest.mark.parametrize("aim", OFFLINE)
def test_steps_are_those_of_the_whole_model(make, aim, tmp_path, monkeypatch):
    monkeypatch.setattr("tunesmith.model.kept.AT_ONCE", 20)
    judge = objective[aim]()
    settings = {"per_device_train_batch_size": 3, "num_train_epochs": 3, "learning_rate": 0.1, "optim": SGD()}
    # Adam would make much of what rounds to nothing, such as the gradient of a key's bias
    whole = loop_of(make, Freeze(num_layers=1), judge, sequences_for(judge), **settings)
    short = loop_of(make, Freeze(num_layers=1), judge, sequences_for(judge), **settings)
    said = []
    short.kept = keep(short.policy, short.sequences, short.order.epochs, tmp_path, said.append)
    assert short.kept and "are computed once and kept" in said[0]
    losses = [(one.loss, other.loss) for one, other in zip(whole.fit(), short.fit(), strict=True)]
    assert all(one == pytest.approx(other, abs=1e-5) for one, other in losses)
    for name, weight in whole.weights.items():
        assert torch.allclose(weight, short.weights[name], atol=1e-5), name
    assert short.policy.model.state_dict().keys() == whole.policy.model.state_dict().keys()
    short.kept.close()
    assert not list(tmp_path.iterdir())


def test_blocks_below_are_not_computed_a_second_time(tmp_path):
    loop = loop_of(make_tiny, Freeze(num_layers=1), SFT(), sequences_for(SFT()), num_train_epochs=2)
    loop.kept = keep(loop.policy, loop.sequences, 2, tmp_path, lambda _: None)
    calls = []
    loop.policy.trunk.layers[0].register_forward_hook(lambda *_: calls.append(1))
    list(loop.fit())
    assert len(calls) == 1


@pytest.mark.parametrize("method", [Full(), LoRA()])
def test_nothing_is_kept_where_the_first_block_learns(method, tmp_path):
    loop = loop_of(make_tiny, method, SFT(), sequences_for(SFT()))
    assert constant_blocks(loop.policy) == 0
    assert keep(loop.policy, loop.sequences, 3, tmp_path, lambda _: None) is None


def test_nothing_is_kept_where_the_model_drops_at_random_or_for_one_epoch(tmp_path):
    def dropping():
        model = gpt2()
        model.transformer.h[0].mlp.dropout.p = 0.5
        return model

    loop = loop_of(dropping, Freeze(num_layers=1), SFT(), sequences_for(SFT()))
    assert constant_blocks(loop.policy) == 0
    loop = loop_of(make_tiny, Freeze(num_layers=1), SFT(), sequences_for(SFT()))
    assert constant_blocks(loop.policy) == 1
    assert keep(loop.policy, loop.sequences, 1, tmp_path, lambda _: None) is None


def test_a_full_disk_is_said(tmp_path, monkeypatch):
    from collections import namedtuple

    monkeypatch.setattr("shutil.disk_usage", lambda _: namedtuple("usage", "free")(10))
    loop = loop_of(make_tiny, Freeze(num_layers=1), SFT(), sequences_for(SFT()))
    said = []
    assert keep(loop.policy, loop.sequences, 2, tmp_path, said.append) is None
    assert "the disk has less" in said[0]
