"""Whatever the model, and whoever joins or leaves meanwhile: what is drawn is what a full forward pass says."""

import pytest
import torch
import transformers
from tinyrun import Words, buffer_of, sequences_for

from tunesmith.errors import Diverged, RecipeError
from tunesmith.methods.base import method
from tunesmith.model.attention import keep_apart
from tunesmith.model.engine import Engine
from tunesmith.model.load import attach
from tunesmith.model.policy import Policy
from tunesmith.model.swift import Wide, swift
from tunesmith.objectives.grpo import GRPO
from tunesmith.rollout import sample as module
from tunesmith.rollout.sample import picked, sample
from tunesmith.samplers.own import Half
from tunesmith.training.online import refuse_half

PROMPTS = [[7, 8, 9, 40 + n, *range(50, 50 + n)] for n in range(5)]
ENDS = list(range(60))
SIZES = {"num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 384, "hidden_size": 32}
GATED = SIZES | {"intermediate_size": 64, "num_key_value_heads": 2}
LINEAR = {"linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
EXPERTS = {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16}
KINDS = {
    "llama": ("LlamaConfig", GATED, True),
    "gpt2": ("GPT2Config", {"vocab_size": 384, "n_embd": 32, "n_layer": 2, "n_head": 4, "eos_token_id": 1}, True),
    "window": ("MistralConfig", GATED | {"sliding_window": 6}, False),
    "alibi": ("BloomConfig", {"vocab_size": 384, "hidden_size": 32, "n_layer": 2, "n_head": 4}, False),
    "recurrent": (
        "Qwen3NextConfig",
        GATED | EXPERTS | LINEAR | {"head_dim": 8, "shared_expert_intermediate_size": 16, "num_hidden_layers": 4},
        False,
    ),
}
"""Of each its sizes, and whether its rows go on together."""


def sharp(model):
    """The same with larger weights, so that what is drawn depends on what went before."""
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3) if weight.ndim == 2 else None
    model.generation_config.eos_token_id = ENDS
    return model.eval()


def furthest(drawn, size, says) -> float:
    """How far a token's log-probability is at most from what a full forward pass says."""
    found = []
    for number, one in enumerate(drawn):
        prompt = PROMPTS[number // size]
        ids = prompt + one.ids
        logp = says(ids).detach().float().log_softmax(-1)
        found += [abs(float(logp[at - 1, ids[at]]) - one.logp[at - len(prompt)]) for at in range(len(prompt), len(ids))]
    return max(found)


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_has_the_log_probability_that_a_full_forward_gives_it(kind, monkeypatch):
    config, sizes, together = KINDS[kind]
    model = sharp(transformers.AutoModelForCausalLM.from_config(getattr(transformers, config)(**sizes)))
    keep_apart(model)
    engine = Engine(model, Words())
    assert engine.together == together
    for rows, size in ((64, 3), (8, 2), (4, 1)):  # in the latter answers wait for others to end
        monkeypatch.setattr(module, "ROWS", rows)
        drawn = sample(engine, PROMPTS, GRPO(max_completion_length=9), 3, size)
        assert len(drawn) == len(PROMPTS) * size and {len(one.ids) for one in drawn} != {9}
        assert furthest(drawn, size, lambda ids: model(torch.tensor([ids]), use_cache=False).logits[0]) < 1e-4
        for one in drawn:
            assert one.ended == (one.ids[-1] in ENDS) and not any(token in ENDS for token in one.ids[:-1])


@pytest.mark.parametrize("name", ["lora", "prompt_tuning", "prefix_tuning", "mixture_of_depths", "bottleneck"])
def test_adapters_and_soft_prompts_speak_as_in_training(tiny, name):
    torch.manual_seed(0)
    policy = Policy(attach(tiny(), method[name](), ()))
    with torch.no_grad():
        for weight in policy.trainable().values():
            weight.add_(torch.randn_like(weight) * 0.05)
    drawn = {}
    engine = Engine(policy.model, Words())
    assert engine.together == (name != "mixture_of_depths")
    drawn["ours"] = sample(engine, PROMPTS, GRPO(max_completion_length=6), 3, 3)
    engine.together = False
    drawn["the model's own"] = sample(engine, PROMPTS, GRPO(max_completion_length=6), 3, 3)
    for one, other in zip(*drawn.values(), strict=True):
        assert one.ids == other.ids
        assert one.logp == pytest.approx(other.logp, abs=1e-4)


def test_a_model_that_leaves_states_out_only_reads_while_it_draws_and_learns_on_behind_it():
    config, sizes, _ = KINDS["gpt2"]
    model = sharp(transformers.AutoModelForCausalLM.from_config(getattr(transformers, config)(**sizes))).train()
    keep_apart(model)
    seen = []
    model.register_forward_pre_hook(lambda module, inputs: seen.append((module.training, torch.is_grad_enabled())))
    drawn = sample(Engine(model, Words()), PROMPTS, GRPO(max_completion_length=9), 3, 3)
    assert {*seen} == {(False, False)} and model.training and torch.is_grad_enabled()
    assert furthest(drawn, 3, lambda ids: model.eval()(torch.tensor([ids]), use_cache=False).logits[0]) < 1e-4
    model.train()
    with torch.no_grad():
        model.transformer.ln_f.weight.fill_(torch.nan)
    with pytest.raises(Diverged):
        sample(Engine(model, Words()), PROMPTS, GRPO(max_completion_length=9), 3, 3)
    assert model.training and torch.is_grad_enabled()


def test_answers_do_not_depend_on_how_many_are_written_at_once(tiny, monkeypatch):
    model, found = sharp(tiny()), []
    keep_apart(model)
    for rows in (64, 8, 3):
        monkeypatch.setattr(module, "ROWS", rows)
        found.append([one.ids for one in sample(Engine(model, Words()), PROMPTS, GRPO(max_completion_length=9), 5, 3)])
    assert found[0] == found[1] == found[2]


def test_what_is_drawn_is_where_the_running_sum_gets_that_far():
    draw = torch.Generator().manual_seed(0)
    mass = torch.rand(300, 700, generator=draw).square() * (torch.rand(300, 700, generator=draw) > 0.3)
    mass[:, :3], mass[:, -3:] = 0, 0
    luck = torch.rand(300, generator=draw, dtype=torch.float64)
    luck[:2] = torch.tensor([0.0, 1 - 2**-53])
    words, sums = picked(mass, luck), mass.double().cumsum(-1)
    ends = sums.gather(-1, words[:, None])[:, 0] / sums[:, -1]
    own = mass.double().gather(-1, words[:, None])[:, 0] / sums[:, -1]
    assert bool((own > 0).all())
    assert bool((luck <= ends + 1e-6).all() and (luck >= ends - own - 1e-6).all())


def test_weights_that_are_no_numbers_are_said(tiny):
    model = tiny()
    with torch.no_grad():
        model.lm_head.weight.fill_(torch.nan)
    with pytest.raises(Diverged, match="nothing but NaN"):
        sample(Engine(model, Words()), PROMPTS, GRPO(max_completion_length=2), 0, 2)


def test_a_swift_model_says_the_same_and_its_weights_are_the_same_tensors_afterwards(tiny, monkeypatch):
    monkeypatch.setattr("tunesmith.model.swift.WIDE", 384)
    model = attach(tiny(), method["lora"](), ())
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.add_(0.05) if "lora_B" in name else None
    ids = torch.tensor([PROMPTS[2]])
    before = {name: (one, one.data_ptr(), one.clone()) for name, one in model.state_dict().items()}
    with torch.no_grad():
        said = model(ids).logits
        with pytest.raises(KeyError), swift(model):
            layer = model.base_model.model.model.layers[0].self_attn.q_proj
            assert layer.merged and type(model.get_output_embeddings()) is Wide
            assert torch.allclose(model(ids).logits, said, atol=1e-5)
            raise KeyError
        assert model(ids).logits.equal(said)
    for name, one in model.state_dict().items():
        assert one.data_ptr() == before[name][1] and one.equal(before[name][2])
    assert not layer.merged


def test_weights_of_16_bits_draw_nearly_the_same_and_say_how_far_they_are(tiny):
    """A run shows the distance as `sampler_mismatch`."""
    judge = GRPO(max_completion_length=6, sampler=Half(), num_iterations=2)
    policy = Policy(sharp(attach(tiny(), method["lora"](), ())))
    answers = buffer_of(policy, judge, method["lora"](), sequences_for(judge))
    apart = float(answers.fill(0, [0, 1])["sampler_mismatch"].mean())
    assert 1e-6 < apart < 0.02
    assert float(answers.fill(1, [0, 1])["sampler_mismatch"].mean()) > 0
    assert {type(one).__name__ for one in policy.model.modules()}.isdisjoint({"Half", "Wide"})


def test_weights_of_16_bits_are_refused_where_nothing_is_quicker_by_them(monkeypatch):
    monkeypatch.setattr("tunesmith.training.online.halves", lambda: False)
    with pytest.raises(RecipeError, match=r"objective.sampler: half is for .*; set it to exact"):
        refuse_half(GRPO(sampler=Half(), num_iterations=2))
    refuse_half(GRPO())
