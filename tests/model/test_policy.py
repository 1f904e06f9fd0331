"""Which models may be packed is found out by trying."""

import pytest
import torch

from tunesmith.data.batch import pack, pad
from tunesmith.data.render import Tokens
from tunesmith.model.policy import Policy

SIZE = {"vocab_size": 384, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}


def causal(family):
    import transformers as hf

    torch.manual_seed(0)
    match family:
        case "gpt2":
            return hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=384, n_embd=32, n_layer=2, n_head=4))
        case "qwen2":
            return hf.Qwen2ForCausalLM(hf.Qwen2Config(**SIZE, intermediate_size=64, num_key_value_heads=2))
        case "mistral":
            return hf.MistralForCausalLM(
                hf.MistralConfig(**SIZE, intermediate_size=64, num_key_value_heads=2, sliding_window=4)
            )
        case "gemma2":
            return hf.Gemma2ForCausalLM(
                hf.Gemma2Config(**SIZE, intermediate_size=64, num_key_value_heads=2, head_dim=8, sliding_window=4)
            )
        case "mamba":
            return hf.MambaForCausalLM(hf.MambaConfig(vocab_size=384, hidden_size=32, num_hidden_layers=2))
    raise ValueError(family)


SEQUENCES = [
    Tokens([n % 300 + 5 for n in range(start, start + size)], [True] * size) for start, size in ((0, 9), (40, 5))
]


@pytest.mark.parametrize("family", ["gpt2", "qwen2", "mistral", "gemma2", "mamba"])
def test_packed_where_it_is_exact_and_padded_elsewhere(family):
    policy = Policy(causal(family).eval())
    padded = policy.logp(pad(SEQUENCES)).token.detach()
    packed = policy.logp(pack(SEQUENCES)).token.detach()
    assert policy.packs() == torch.allclose(padded, packed, atol=1e-4)
    assert policy.packs() == (family != "mamba")


def test_an_encoder_is_padded():
    from transformers import BertConfig, BertForSequenceClassification

    policy = Policy(BertForSequenceClassification(BertConfig(**SIZE, intermediate_size=64)))
    assert not policy.packs()


def test_the_last_token_of_each_sequence_is_found_however_laid_out():
    for layout in (pack, pad):
        batch = layout(SEQUENCES)
        assert batch.ids.flatten()[batch.last].tolist() == [tokens.ids[-1] for tokens in SEQUENCES]
