"""Packed rows give what each sequence gives alone: windows, soft caps, encoders, whatever attention a model has."""

import pytest
import torch
from conftest import make_tiny

from tunesmith.data.batch import branches, pack, pad, share
from tunesmith.data.rendering.render import Tokens
from tunesmith.methods.lora import LoRA
from tunesmith.methods.p_tuning import PTuning
from tunesmith.methods.prefix_tuning import PrefixTuning
from tunesmith.methods.prompt_tuning import PromptTuning
from tunesmith.model import attention
from tunesmith.model.attention import OURS, Apart, Row
from tunesmith.model.load import attach
from tunesmith.model.policy import Policy

SIZE = {
    "vocab_size": 384,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "pad_token_id": 0,
}
SMALL = {"max_position_embeddings": 24, "num_labels": 3}
SEQUENCES = [
    Tokens([(7 * n + start) % 300 + 5 for n in range(size)], [True] * size, label=start % 3)
    for start, size in ((0, 17), (40, 9), (90, 2), (11, 14))
]


def causal(family):
    import transformers as hf

    torch.manual_seed(0)
    size = SIZE | {"num_key_value_heads": 2}
    gpt = {"vocab_size": 384, "n_layer": 2, "n_head": 4}
    made = {
        "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**size)),
        "llama eager": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**size, attn_implementation="eager")),
        "mistral": lambda: hf.MistralForCausalLM(hf.MistralConfig(**size, sliding_window=4)),
        "gemma2": lambda: hf.Gemma2ForCausalLM(hf.Gemma2Config(**size, head_dim=8, sliding_window=4)),
        "gemma3": lambda: hf.Gemma3ForCausalLM(hf.Gemma3TextConfig(**size, head_dim=8, sliding_window=4)),
        "qwen3": lambda: hf.Qwen3ForCausalLM(hf.Qwen3Config(**size, head_dim=8)),
        "gpt-oss": lambda: hf.GptOssForCausalLM(
            hf.GptOssConfig(**size, head_dim=8, sliding_window=4, num_local_experts=2, num_experts_per_tok=1)
        ),
        "cohere": lambda: hf.CohereForCausalLM(hf.CohereConfig(**size, logit_scale=0.25)),
        "granite": lambda: hf.GraniteForCausalLM(hf.GraniteConfig(**size, logits_scaling=3.0)),
        "gpt2": lambda: hf.GPT2LMHeadModel(hf.GPT2Config(**gpt, n_embd=32)),
        "opt": lambda: hf.OPTForCausalLM(hf.OPTConfig(**SIZE, ffn_dim=64)),
        "bloom": lambda: hf.BloomForCausalLM(hf.BloomConfig(**gpt, hidden_size=32)),
        "mamba": lambda: hf.MambaForCausalLM(hf.MambaConfig(vocab_size=384, hidden_size=32, num_hidden_layers=2)),
    }
    return made[family]()


def encoder(family):
    import transformers as hf

    torch.manual_seed(0)
    size, roberta = SIZE | SMALL, SIZE | SMALL | {"pad_token_id": 1}
    modern = SIZE | {"local_attention": 6, "global_attn_every_n_layers": 2, "num_labels": 3}
    distil = {"vocab_size": 384, "dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 4, "num_labels": 3}
    made = {
        "bert": lambda: hf.BertForSequenceClassification(hf.BertConfig(**size)),
        "roberta": lambda: hf.RobertaForSequenceClassification(hf.RobertaConfig(**roberta)),
        "electra": lambda: hf.ElectraForSequenceClassification(hf.ElectraConfig(**size, embedding_size=32)),
        "modernbert": lambda: hf.ModernBertForSequenceClassification(hf.ModernBertConfig(**modern)),
        "distilbert": lambda: hf.DistilBertForSequenceClassification(hf.DistilBertConfig(**distil)),
        "deberta": lambda: hf.DebertaV2ForSequenceClassification(hf.DebertaV2Config(**size)),
    }
    return made[family]()


def alone(model, tokens):
    """What plain transformers makes of one sequence, nothing of ours in it."""
    return model(input_ids=torch.tensor([tokens.ids])).logits[0]


CAUSAL = ["llama", "llama eager", "mistral", "gemma2", "gemma3", "qwen3", "gpt-oss", "cohere", "granite", "gpt2", "opt"]
CAUSAL += ["bloom", "mamba"]
PADDED = {"bloom", "mamba"}  # ALiBi counts from the start of a row; a state space runs through it


@pytest.mark.parametrize("family", CAUSAL)
def test_a_causal_model_gives_each_sequence_what_it_gets_alone(family):
    model = causal(family).eval()
    expected = torch.cat([
        alone(model, tokens).log_softmax(-1)[:-1].gather(-1, torch.tensor(tokens.ids[1:])[:, None])[:, 0]
        for tokens in SEQUENCES
    ])  # fmt: skip
    policy = Policy(model)
    assert (policy.layout() is pad) == (family in PADDED)
    got = policy.logp(policy.layout()(SEQUENCES)).token
    assert torch.allclose(got, expected, atol=1e-5)
    assert not policy.bends_logits
    assert torch.allclose(policy.logp(pad(SEQUENCES)).token, expected, atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "modernbert", "distilbert", "deberta"])
def test_an_encoder_gives_each_sequence_what_it_gets_alone(family):
    model = encoder(family).eval()
    expected = torch.stack([alone(model, tokens) for tokens in SEQUENCES])
    policy = Policy(model)
    packs = policy.layout() is pack
    assert packs == (family != "deberta")  # it counts distances over the whole row
    got = policy.score(policy.layout()(SEQUENCES))  # more tokens in a row than bert has positions
    assert torch.allclose(got, expected, atol=1e-5)


def test_gradients_through_packed_rows_and_checkpointing_are_those_of_padded_ones():
    found = {}
    for layout, checkpointing in ((pad, False), (pack, False), (pack, True)):
        model = causal("mistral").train()
        if checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        policy = Policy(model)
        policy.layout()
        policy.logp(layout(SEQUENCES)).token.sum().backward()
        found[layout, checkpointing] = torch.cat([weight.grad.flatten() for weight in model.parameters()])
    plain, *others = found.values()
    assert all((plain - other).norm() < 1e-5 * plain.norm() for other in others)


def test_what_is_saved_and_what_generates_knows_nothing_of_it(tmp_path):
    model = causal("llama").eval()
    ids = torch.tensor([SEQUENCES[0].ids])
    expected = model.generate(ids, max_new_tokens=5, do_sample=False)
    Policy(model).layout()
    assert torch.equal(model.generate(ids, max_new_tokens=5, do_sample=False), expected)
    model.save_pretrained(tmp_path)
    assert not any(name in (tmp_path / "config.json").read_text() for name in OURS.values())


def test_chunked_attention_is_left_to_the_models_own_mask():
    model = causal("llama")
    model.config.attention_chunk_size = 4
    assert not Policy(model).apart


FRONT = [9, 4, 11, 6, 2]
ALIKE = [
    Tokens([*FRONT, *tokens.ids], [at > 6 for at in range(len(tokens.ids) + 5)], label=tokens.label)
    for tokens in SEQUENCES
]  # the first token that is learnt is the eighth, and the shortest sequence ends with the seventh


@pytest.mark.parametrize("family", [name for name in CAUSAL if name not in PADDED])
@pytest.mark.parametrize("learning", [False, True], ids=["states", "gradients"])
def test_what_sequences_begin_with_is_computed_once_and_nothing_changes(family, learning):
    model = causal(family).eval()
    policy = Policy(model)
    assert policy.layout() is share
    batch = share(ALIKE)
    assert batch.borrowed == (0, 5, 5, 5) and batch.ids.numel() == sum(len(one.ids) for one in ALIKE) - 15
    assert batch.tokens == sum(len(one.ids) for one in ALIKE)
    found = {}
    for name, made in (("shared", batch), ("padded", pad(ALIKE))):
        model.zero_grad()
        logp = policy.logp(made)
        logp.token.square().sum().backward()
        slopes = torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])
        found[name] = slopes if learning else logp.token.detach()
    assert (found["shared"] - found["padded"]).norm() < 1e-5 * found["padded"].norm()


def test_what_predicts_a_learnt_token_is_a_sequences_own():
    def common(*sequences):
        *_, last = branches([Tokens(list(ids), [at == learnt for at in range(len(ids))]) for ids, learnt in sequences])
        return last

    assert common(((1, 2, 3, 4, 5), 4), ((1, 2, 3, 4, 6), 4)) == 3  # the fourth predicts what is learnt
    assert common(((1, 2, 3, 4, 5), 2), ((1, 2, 3, 4, 6), 4)) == 1
    assert common(((1, 2, 3), 9), ((1, 2, 3), 9)) == 1  # of a text that is classified, the last is
    assert common(((1, 2, 9, 9), 9), ((1, 2, 9, 9, 9), 9)) == 1  # looked at, or, where that pads, the last before
    assert common(((1, 2, 3), 9), ((2, 2, 3), 9)) == common(((1, 2), 0)) == common(((1, 2), 1), ((1, 2), 1)) == 0


def test_what_drops_at_random_shares_nothing():
    model = causal("llama").train()
    assert Policy(model).layout() is share
    model.config.attention_dropout = 0.5
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.5
    assert Policy(model).layout() is pack
    assert Policy(model.eval()).layout() is share


@pytest.mark.parametrize("causal_too", [True, False])
def test_attention_keeps_what_it_was_given_and_its_outcome_alone(causal_too):
    draw = [torch.randn(1, heads, 12, 8, requires_grad=True) for heads in (4, 2, 2)]
    kept = {}
    with torch.autograd.graph.saved_tensors_hooks(lambda one: kept.setdefault(one.data_ptr(), one), lambda one: one):
        out = Apart.apply(*draw, Row([0, 3], [7, 5], causal_too, None))
    sizes = sorted(tensor.numel() for tensor in kept.values())
    assert sizes == sorted([4 * 12 * 8, 2 * 12 * 8, 2 * 12 * 8, 4 * 12 * 8, 4 * 12])
    assert out.data_ptr() in kept and out.is_contiguous()


# --- several families in a row, each with its own beginning

METHODS = {"lora": LoRA(), "prompt": PromptTuning(), "p-tuning": PTuning(), "prefix": PrefixTuning()}
MODELS = ("llama", "llama eager", "mistral", "gemma2", "gpt2")


def said(prompt: int, size: int, answer: int, length: int) -> Tokens:
    """One of a few prompts of so many tokens, and one of a few answers."""
    ids = [(11 * n + 50 * prompt) % 300 + 5 for n in range(size)] + [(7 * n + answer) % 300 + 5 for n in range(length)]
    return Tokens(ids, [n >= size for n in range(size + length)], label=answer % 2)


ROW = [
    said(0, 12, 1, 5), said(0, 12, 40, 9),  # a pair
    said(1, 7, 3, 6),  # nobody's neighbour
    said(2, 20, 60, 3), said(2, 20, 61, 4), said(2, 20, 62, 1),  # three answers to one prompt
    said(3, 9, 80, 2), said(3, 9, 81, 8),
]  # fmt: skip
BORROWED = [0, 11, 0, 0, 19, 19, 0, 8]


def outcome(policy: Policy, layout) -> torch.Tensor:
    """What is said of every token to be learnt, and the gradient by whatever learns."""
    policy.model.zero_grad()
    logp = policy.logp(layout(ROW)).token
    (logp.square().sum() + logp.sum()).backward()
    slopes = [weight.grad.flatten() for weight in policy.trainable().values() if weight.grad is not None]
    return torch.cat([logp.detach(), *slopes])


def test_families_are_found_and_their_prompts_are_computed_once():
    assert branches(ROW) == BORROWED
    batch = share(ROW)
    assert batch.ids.numel() == batch.tokens - sum(BORROWED) == sum(len(one.ids) for one in ROW) - 57


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("family", MODELS)
def test_families_of_any_model(family, checkpointing):
    model = causal(family).train()
    if family == "gpt2":  # drops at random unless told otherwise, and then shares nothing
        model.eval()
    if checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    policy = Policy(model)
    assert policy.layout() is share
    alone, once = outcome(policy, pad), outcome(policy, share)
    assert (alone - once).norm() < 1e-5 * alone.norm()


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("name", METHODS)
def test_families_behind_a_soft_prompt(name, checkpointing):
    method = METHODS[name]
    torch.manual_seed(0)
    model = attach(make_tiny(), method)
    if checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    policy = Policy(model)
    with torch.no_grad():
        for weight in policy.trainable().values():
            weight.add_(0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    alone, once = outcome(policy, pad), outcome(policy, share)
    assert (alone - once).norm() < 1e-5 * alone.norm()


def test_families_in_one_row_do_not_hear_each_other():
    policy = Policy(causal("mistral").eval())
    with torch.no_grad():
        together = policy.logp(share(ROW)).token
        parts = torch.cat([policy.logp(share(ROW[at:end])).token for at, end in ((0, 2), (2, 3), (3, 6), (6, 8))])
    assert torch.allclose(together, parts, atol=1e-5)


@pytest.fixture
def afar(monkeypatch):
    """As on a GPU: a row's sequences are looked at in one call, by a mask. How many masks were made."""
    monkeypatch.setattr(attention, "NEAR", ())
    made = []

    def visible(mask, *told, real=attention.visible):
        made.append(told)
        return real(mask, *told)

    monkeypatch.setattr(attention, "visible", visible)
    return made


@pytest.mark.parametrize("family", [name for name in CAUSAL if name not in PADDED])
def test_on_a_gpu_one_call_by_a_mask_gives_the_same(family, afar):
    test_a_causal_model_gives_each_sequence_what_it_gets_alone(family)
    test_what_sequences_begin_with_is_computed_once_and_nothing_changes(family, True)
    assert {afar.count(one) for one in afar if one[0] > 14} == {1}  # of a batch, and not of each of its layers
    if family in MODELS:
        test_families_of_any_model(family, True)


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_on_a_gpu_encoders_see_both_ways(family, afar):
    test_an_encoder_gives_each_sequence_what_it_gets_alone(family)
    assert afar


@pytest.mark.parametrize("name", METHODS)
def test_on_a_gpu_soft_prompts_stand_in_front(name, afar):
    test_families_behind_a_soft_prompt(name, False)
    assert afar


def test_on_a_gpu_long_rows_are_looked_at_one_by_one(afar, monkeypatch):
    monkeypatch.setattr(attention, "AT_ONCE", 20)
    test_a_causal_model_gives_each_sequence_what_it_gets_alone("llama")
    assert all(length <= 20 for length, *_ in afar)  # which a policy tries itself with


def test_on_a_gpu_a_window_reaches_into_a_prefix_as_far_as_on_a_processor(monkeypatch):
    torch.manual_seed(0)
    policy = Policy(attach(causal("mistral"), PrefixTuning(num_virtual_tokens=3)))
    with torch.no_grad():
        for weight in policy.trainable().values():
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    near = outcome(policy, share)
    monkeypatch.setattr(attention, "NEAR", ())
    assert torch.allclose(outcome(policy, share), near, atol=1e-5)
