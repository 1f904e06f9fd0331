"""Positions that are stretched and attention by other programs: set before the model is made, found when asked."""

import math
from dataclasses import replace

import pytest
import torch
from tinyrun import loop_of, sequences_for
from training.test_resume import run_of

from tunesmith import load_run
from tunesmith.attn.base import Place, attn
from tunesmith.attn.kinds import Auto, Eager, Flash2, Flash3, Flex, Sdpa, best, knows_flash
from tunesmith.attn.shifted import Shifted
from tunesmith.config.load import load
from tunesmith.data.batch import pack, pad, share
from tunesmith.errors import BadEnvironment, RecipeError
from tunesmith.methods.full import Full
from tunesmith.methods.lora import LoRA
from tunesmith.methods.prefix_tuning import PrefixTuning
from tunesmith.model.liger import wanted
from tunesmith.model.load import load_model
from tunesmith.model.policy import Policy
from tunesmith.objectives.sft import SFT
from tunesmith.rope.kinds import Dynamic, Linear, Llama3, Unchanged, Yarn
from tunesmith.run import Run
from tunesmith.training.train import train

IDS = torch.arange(5, 45)[None]
THETA, WIDTH, KNOWN = 10000.0, 8, 2048


def shaped(run, **changes):
    return replace(run, model=replace(run.model, **changes))


def frequencies(model):
    return model.model.rotary_emb.inv_freq


def plain():
    """The frequencies of the tiny model: theta to the power of -2i/d."""
    return torch.tensor([THETA ** (-2 * i / WIDTH) for i in range(WIDTH // 2)])


# --- positions --------------------------------------------------------------------------------------------------------


def test_linear_divides_all_frequencies(model_folder):
    model, _ = load_model(model_folder, changes=[Linear(factor=4)])
    assert torch.allclose(frequencies(model), plain() / 4)
    assert model.config.max_position_embeddings == 4 * KNOWN


def test_linear_is_the_model_at_positions_closer_together(model_folder):
    """By its definition: position m of the scaled model is position m / factor of the other."""
    scaled, _ = load_model(model_folder, changes=[Linear(factor=2)])
    usual, _ = load_model(model_folder)
    at = torch.arange(IDS.shape[1])[None]
    with torch.no_grad():
        assert torch.allclose(
            scaled.eval()(IDS, position_ids=2 * at).logits, usual.eval()(IDS, position_ids=at).logits, atol=1e-5
        )
        assert not torch.allclose(scaled(IDS).logits, usual(IDS).logits, atol=1e-4)


def test_llama3_leaves_fast_frequencies_and_divides_slow_ones(model_folder):
    model, _ = load_model(model_folder, changes=[Llama3(factor=8, low_freq_factor=1, high_freq_factor=4)])
    for got, usual in zip(frequencies(model).tolist(), plain().tolist(), strict=True):
        turns = KNOWN * usual / (2 * math.pi)
        between = (turns - 1) / (4 - 1)
        mixed = (1 - between) * usual / 8 + between * usual
        expected = usual if turns > 4 else usual / 8 if turns < 1 else mixed
        assert got == pytest.approx(expected, rel=1e-5)


def test_yarn_is_the_papers(model_folder):
    model, _ = load_model(model_folder, changes=[Yarn(factor=4)])

    def dimension(turns):
        return WIDTH * math.log(KNOWN / (turns * 2 * math.pi)) / (2 * math.log(THETA))

    low, high = max(math.floor(dimension(32)), 0), min(math.ceil(dimension(1)), WIDTH - 1)
    for number, (got, usual) in enumerate(zip(frequencies(model).tolist(), plain().tolist(), strict=True)):
        slow = min(max((number - low) / (high - low), 0), 1)
        assert got == pytest.approx(slow * usual / 4 + (1 - slow) * usual, rel=1e-5)
    assert model.model.rotary_emb.attention_scaling == pytest.approx(0.1 * math.log(4) + 1)


def test_dynamic_changes_nothing_until_a_text_is_longer(model_folder, tiny, tokenizer, tmp_path):
    tiny(max_position_embeddings=16).save_pretrained(tmp_path / "short")
    (scaled, _), (usual, _) = (
        load_model(tmp_path / "short", changes=[one]) for one in (Dynamic(factor=4), Unchanged())
    )
    with torch.no_grad():
        assert torch.equal(scaled.eval()(IDS[:, :16]).logits, usual.eval()(IDS[:, :16]).logits)
        assert not torch.allclose(scaled(IDS).logits, usual(IDS).logits, atol=1e-4)


def test_dynamic_is_not_trained_on_longer_texts(model_folder, reviews, tmp_path):
    run = shaped(run_of(model_folder, reviews, tmp_path / "run", LoRA(r=4), SFT()), rope_scaling=Dynamic(factor=4))
    train(run, quiet=True)
    longer = replace(run, data=replace(run.data, max_length=4096), output=str(tmp_path / "longer"))
    with pytest.raises(RecipeError, match=r"model.rope_scaling: dynamic .* the 2048 tokens .* data.max_length=2048"):
        train(longer, quiet=True)


ROPES = {
    "linear": (Linear(), Linear(factor=3)),
    "dynamic": (Dynamic(factor=2), Dynamic(factor=8)),
    "yarn": (Yarn(factor=4), Yarn(factor=8)),
    "yarn fast": (Yarn(factor=4), Yarn(factor=4, beta_fast=500)),
    "yarn slow": (Yarn(factor=4), Yarn(factor=4, beta_slow=0.01)),
    "yarn sharp": (Yarn(factor=4), Yarn(factor=4, attention_factor=3)),
    "llama3": (Llama3(), Llama3(factor=8)),
    "llama3 slow": (Llama3(factor=8), Llama3(factor=8, low_freq_factor=3.5)),
    "llama3 fast": (Llama3(factor=8), Llama3(factor=8, high_freq_factor=64)),
}


@pytest.mark.parametrize("option", ROPES)
def test_every_option_of_positions_changes_what_is_said(option, tiny, tmp_path):
    tiny(max_position_embeddings=32 if option == "dynamic" else KNOWN).save_pretrained(tmp_path / "short")
    with torch.no_grad():
        said = [load_model(tmp_path / "short", changes=[one])[0].eval()(IDS).logits for one in ROPES[option]]
    assert not torch.equal(*said)


@pytest.mark.parametrize("method", [LoRA(r=4), Full()], ids=["lora", "full"])
def test_what_was_trained_stretched_is_asked_stretched(method, model_folder, reviews, tmp_path):
    run = run_of(model_folder, reviews, tmp_path / "run", method, SFT())
    train(shaped(run, rope_scaling=Yarn(factor=4)), quiet=True)
    model = load_run(tmp_path / "run").model
    bare = model.get_base_model() if hasattr(model, "peft_config") else model
    assert torch.equal(frequencies(bare), frequencies(load_model(model_folder, changes=[Yarn(factor=4)])[0]))


def test_positions_that_are_scaled_already_are_refused(tiny, tmp_path):
    rope = {"rope_type": "linear", "factor": 2.0, "rope_theta": THETA}
    tiny(rope_parameters=rope).save_pretrained(tmp_path / "scaled")
    with pytest.raises(RecipeError, match="model.rope_scaling: the model's positions are scaled already, by linear"):
        load_model(tmp_path / "scaled", changes=[Yarn()])


def test_a_model_without_rotary_positions_is_refused(tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel

    GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2)).save_pretrained(tmp_path / "gpt2")
    with pytest.raises(RecipeError, match="model.rope_scaling: gpt2 has no rotary positions"):
        load_model(tmp_path / "gpt2", changes=[Linear()])


# --- attention --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("one", [Sdpa(), Eager()], ids=lambda one: one.name)
def test_the_program_asked_for_computes_and_says_the_same(one, model_folder):
    (asked, _), (usual, _) = load_model(model_folder, changes=[one]), load_model(model_folder)
    assert asked.config._attn_implementation == one.name
    with torch.no_grad():
        assert torch.allclose(asked.eval()(IDS).logits, usual.eval()(IDS).logits, atol=1e-5)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("name", [name for name, entry in attn.all().items() if entry.needs_gpu])
def test_what_needs_a_gpu_says_so(name, reviews, tmp_path):
    run = shaped(run_of(tmp_path / "no model", reviews, tmp_path / "run", LoRA(), SFT()), attn=attn[name]())
    with pytest.raises(RecipeError, match=f"model.attn: {name} needs a GPU; on a CPU take auto"):
        train(run, quiet=True)


BOTH = frozenset({"flash_attn", "flash_attn_interface"})
BEST = {
    "hopper with both": (Place((9, 0), BOTH), True, True, "flash_attention_3"),
    "hopper with the older": (Place((9, 0), frozenset({"flash_attn"})), True, True, "flash_attention_2"),
    "ampere with both": (Place((8, 6), BOTH), True, True, "flash_attention_2"),
    "blackwell with both": (Place((10, 0), BOTH), True, True, "flash_attention_2"),
    "turing": (Place((7, 5), BOTH), True, True, None),
    "nothing installed": (Place((9, 0)), True, True, None),
    "weights in fp32": (Place((9, 0), BOTH), False, True, None),
    "a model with ways of its own": (Place((9, 0), BOTH), True, False, None),
    "no gpu": (Place(None, BOTH), True, True, None),
}


@pytest.mark.parametrize(("place", "halves", "flash", "expected"), BEST.values(), ids=BEST)
def test_auto_takes_the_best_that_a_machine_has(place, halves, flash, expected):
    assert best(place, halves, flash) == expected


def test_what_a_machine_lacks_is_said():
    assert "not written for a GPU of compute capability 8.0" in Flash3().lacks(Place((8, 0), BOTH), True)
    assert "build it from the hopper folder" in Flash3().lacks(Place((9, 0)), True)
    assert "needs flash_attn, which is not installed: pip install flash-attn" in Flash2().lacks(Place((8, 0)), True)
    assert Flex().lacks(Place((8, 0)), False) == ""
    assert "set model.precision=bf16" in Flash2().lacks(Place((8, 0), BOTH), False)
    assert Flash2().lacks(Place((8, 0), BOTH), True) == Flash3().lacks(Place((9, 0), BOTH), True) == ""


def test_auto_asks_the_model_whether_it_knows_flash_attention(tiny):
    from transformers import MambaConfig

    assert knows_flash(tiny().config) and not knows_flash(MambaConfig())
    config = tiny().config
    Auto().change(config)
    assert torch.cuda.is_available() or config._attn_implementation is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_ligers_kernels_are_refused_without_a_gpu(reviews, tmp_path):
    run = shaped(run_of(tmp_path / "no model", reviews, tmp_path / "run", LoRA(), SFT()), liger="on")
    with pytest.raises(RecipeError, match="model.liger: on needs a GPU, since its kernels .*; take auto"):
        train(run, quiet=True)
    assert not wanted("auto") and not wanted("off")


def test_on_a_gpu_missing_kernels_are_named(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("tunesmith.model.liger.find_spec", lambda package: None)
    with pytest.raises(BadEnvironment, match="model.liger: on needs liger_kernel, .* pip install 'tunesmith.liger.'"):
        wanted("on")
    assert not wanted("auto")


def shifted_loop(tiny, layout, size=6, method=None, **parts):
    def made(**more):
        model = tiny(**more, **parts)
        Shifted(group_size=size).change(model.config)
        return model

    return loop_of(made, method or Full(), SFT(), sequences_for(SFT()), layout, max_grad_norm=0)


def reach(model, length: int, heads: slice) -> torch.Tensor:
    """[T, T] whether what attention gives a token depends on another token's value, for some of the heads."""
    from tunesmith.model.shifted import shifted

    block = model.model.layers[0].self_attn.train()
    query, key = (torch.randn(1, count, length, 8) for count in (4, 2))
    value = torch.randn(1, 2, length, 8, requires_grad=True)
    out = shifted(block, query, key, value, None, scaling=8**-0.5)[0][0, :, heads]
    rows = [torch.autograd.grad(one.sum(), value, retain_graph=True)[0].abs().sum((0, 1, 3)) > 0 for one in out]
    return torch.stack(rows)


@pytest.mark.parametrize("length", [3, 6, 7, 12, 17, 20])
def test_who_sees_whom(length, tiny):
    """By the paper's words: groups of six; in half of the heads they begin three tokens earlier. Nobody sees ahead."""
    model = tiny()
    Shifted(group_size=6).change(model.config)
    at = torch.arange(length)
    before = at[:, None] >= at
    same, moved = (((at + by)[:, None] // 6) == ((at + by) // 6) for by in (0, 3))
    assert torch.equal(reach(model, length, slice(0, 2)), before & same)
    assert torch.equal(reach(model, length, slice(2, 4)), before & moved)


def test_no_token_learns_of_a_later_one(tiny):
    """Of the whole model, in training: what it says of a token stays when later ones change."""
    model = tiny()
    Shifted(group_size=8).change(model.config)
    policy = Policy(model.train())
    other = IDS.clone()
    other[:, 20:] += 1
    with torch.no_grad():
        one, two = (policy.model(ids).logits for ids in (IDS, other))
    assert torch.equal(one[:, :20], two[:, :20]) and not torch.equal(one[:, 20:], two[:, 20:])


def test_a_group_as_long_as_the_text_is_seen_by_half_of_the_heads_whole(tiny):
    """With groups longer than twice the text, shifted heads see all too: it is the usual attention."""
    usual, grouped = (
        shifted_loop(tiny, pad, size) if size else loop_of(tiny, Full(), SFT(), sequences_for(SFT()), pad)
        for size in (0, 64)
    )
    losses = [float(loop.gradient(0)[0]["loss"].mean()) for loop in (usual, grouped)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


@pytest.mark.parametrize("near", [("cpu",), ()], ids=["", "as on a GPU"])
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("layout", [pack, share], ids=["packed", "shared"])
def test_packing_does_not_matter_to_groups(layout, implementation, near, tiny, monkeypatch):
    monkeypatch.setattr("tunesmith.model.attention.NEAR", near)
    loops = [shifted_loop(tiny, how, attn_implementation=implementation) for how in (pad, layout)]
    results = []
    for loop in loops:
        tallies, _ = loop.gradient(0)
        results.append((float(tallies["loss"].mean()), {name: one.grad for name, one in loop.weights.items()}))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    for name, grad in results[0][1].items():
        assert torch.allclose(grad, results[1][1][name], atol=1e-4 * float(grad.abs().max() + 1e-9)), name


def test_groups_are_for_training_alone(model_folder, reviews, tmp_path):
    run = run_of(model_folder, reviews, tmp_path / "run", LoRA(r=4), SFT())
    train(shaped(run, attn=Shifted(group_size=4)), quiet=True)
    tuned = load_run(tmp_path / "run").model
    usual = load_run(tmp_path / "run", ["model.attn=auto"]).model
    with torch.no_grad():
        assert torch.equal(tuned(IDS).logits, usual(IDS).logits)


def test_groups_of_another_size_train_another_model(tiny):
    losses = [float(shifted_loop(tiny, pack, size).gradient(0)[0]["loss"].mean()) for size in (4, 6)]
    assert losses[0] != losses[1]


def test_groups_are_refused_where_they_would_be_passed_over(tiny, model_folder, tmp_path):
    from transformers import BertConfig, BertForSequenceClassification, MistralConfig, MistralForCausalLM

    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    window = MistralConfig(vocab_size=384, num_key_value_heads=2, sliding_window=8, **size)
    MistralForCausalLM(window).save_pretrained(tmp_path / "window")
    with pytest.raises(RecipeError, match="model.attn: shifted .* mistral has windows of its own"):
        load_model(tmp_path / "window", changes=[Shifted()])
    with pytest.raises(RecipeError, match="model.attn: shifted lets no token see a prefix"):
        shifted_loop(tiny, pad, method=PrefixTuning(num_virtual_tokens=2)).gradient(0)
    encoder = BertForSequenceClassification(BertConfig(vocab_size=384, **size))
    Shifted().change(encoder.config)
    with pytest.raises(RecipeError, match="model.attn: shifted is for models that read from left to right"):
        Policy(encoder.train()).score(pad(sequences_for(SFT())))


def test_a_folder_does_not_decide_on_groups(model_folder):
    import json

    file = model_folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"shifted_group_size": 2}))
    assert not hasattr(load_model(model_folder)[0].config, "shifted_group_size")


def test_words_and_options_mean_what_they_say():
    read = load(Run, None, ["model.path=a", "data.path=b", "model.rope_scaling=yarn", "model.rope_scaling.factor=4",
                            "model.attn={name: shifted, group_size: 512}"]).value.model  # fmt: skip
    assert read.rope_scaling == Yarn(factor=4) and read.attn == Shifted(group_size=512)
    with pytest.raises(RecipeError, match="group_size"):
        load(Run, None, ["model.path=a", "data.path=b", "model.attn={name: shifted, group_size: 7}"])
