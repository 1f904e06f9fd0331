"""The embedding's gradient: of a token that pads as well it is not dropped, and of a tied head it is whole."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from tunesmith.data.batch import pack
from tunesmith.data.rendering.render import Tokens
from tunesmith.methods.full import Full
from tunesmith.model.load import attach
from tunesmith.model.policy import Policy

STOP = 1
ROWS = [Tokens([7, STOP, 9, 12, STOP], [True] * 5), Tokens([5, 8, STOP], [True] * 3)]


def padding(tied):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        pad_token_id=STOP,
        eos_token_id=STOP,
        tie_word_embeddings=tied,
    )
    return LlamaForCausalLM(config)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "apart"])
def test_the_gradient_is_that_of_a_lookup_without_padding(tied):
    plain = padding(tied)
    plain.get_input_embeddings().padding_idx = None
    for row in ROWS:
        ids = torch.tensor([row.ids])
        cross_entropy(plain(ids).logits[0, :-1], ids[0, 1:], reduction="sum").backward()
    model = attach(padding(tied), Full())
    (-Policy(model).logp(pack(ROWS)).token.sum()).backward()
    expected, got = plain.get_input_embeddings().weight.grad, model.get_input_embeddings().weight.grad
    assert not got.is_sparse
    assert bool(got[STOP].any())
    assert torch.allclose(got, expected, atol=1e-5)
