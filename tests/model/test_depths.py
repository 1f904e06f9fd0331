"""Mixture-of-Depths: who goes through a block, what that costs, and that decoding sees no token to come."""

import json

import pytest
import torch
from conftest import make_tiny
from tinyrun import loop_of, sequences_for
from training.test_resume import run_of

from tunesmith import load_run
from tunesmith.data.batch import pack, pad
from tunesmith.errors import CheckpointError, RecipeError
from tunesmith.methods.full import Full
from tunesmith.methods.mixture_of_depths import MixtureOfDepths
from tunesmith.model.engine import Engine
from tunesmith.model.load import attach, load_model
from tunesmith.model.policy import Policy
from tunesmith.objectives.sft import SFT
from tunesmith.training.train import train

ROWS = sequences_for(SFT())
IDS = torch.tensor([[5, 6, 7, 8, 9, 40, 41, 12, 33, 90]])


def mixed(**options):
    """The tiny model whose second block chooses, with routers and predictors that tell tokens apart."""
    model = attach(make_tiny(), MixtureOfDepths(**options))
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "router" in name or "predictor" in name:
                weight.copy_(torch.randn(weight.shape, generator=draw) if weight.ndim > 1 else 0 * weight)
    return model


def inputs_of(model, at=1):
    """The shapes that reach the attention of a block from now on."""
    shapes = []
    attention = model.model.layers[at].self_attn
    attention.register_forward_pre_hook(
        lambda _, args, kwargs: shapes.append(tuple(kwargs["hidden_states"].shape)), with_kwargs=True
    )
    return shapes


@pytest.mark.parametrize("capacity", [0.3, 0.5, 0.9])
def test_a_block_is_computed_for_the_tokens_that_score_highest_and_weighed_by_their_gate(capacity):
    model = mixed(capacity=capacity).train()
    plain = make_tiny().train().model  # its blocks are called one by one here
    x = plain.embed_tokens(IDS)
    positions = torch.arange(10)[None]
    cos, sin = plain.rotary_emb(x, positions)
    x = plain.layers[0](x, position_embeddings=(cos, sin))
    scores = (x @ model.model.layers[1].router.weight.T)[0, :, 0]
    at = scores.topk(-int(-10 * capacity // 1)).indices.sort().values
    some = plain.layers[1](x[:, at], position_embeddings=(cos[:, at], sin[:, at]))
    x = x.clone()
    x[:, at] = x[:, at] + 2 * scores[at].sigmoid()[None, :, None] * (some - x[:, at])
    assert torch.allclose(model.model(IDS).last_hidden_state, plain.norm(x), atol=1e-5)


def test_what_passes_by_costs_nothing():
    model = mixed(capacity=0.3)
    shapes = inputs_of(model)
    Policy(model.train()).states(pack(ROWS))
    assert shapes.pop() == (1, sum(-int(-0.3 * len(one.ids) // 1) for one in ROWS), 32)
    model.eval()(IDS)
    chosen = shapes.pop()[1]
    assert 0 < chosen < 10  # as the predictor says, or this model shows nothing


def test_sequences_choose_for_themselves_however_they_are_laid_out():
    found = {}
    for layout, checkpointing in ((pack, False), (pad, False), (pack, True)):
        model = mixed().train()
        if checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        policy = Policy(model)
        assert policy.layout() is pack  # what sequences begin with is not chosen alike
        policy.logp(layout(ROWS)).token.sum().backward()
        found[layout, checkpointing] = torch.cat([weight.grad.flatten() for weight in model.parameters()])
    first, *others = found.values()
    assert all((first - other).norm() < 1e-5 * first.norm() for other in others)


def test_asked_nothing_is_seen_of_what_comes_after():
    model = mixed().eval()
    whole = model(IDS).logits
    for end in range(1, 10):
        assert torch.allclose(model(IDS[:, :end]).logits, whole[:, :end], atol=1e-5)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_answers_from_a_memory_are_those_of_the_whole_text(tokenizer, attention):
    model = mixed().eval()
    model.set_attn_implementation(attention)
    prompts = [[5, 6, 7, 8, 30, 31], [5, 6, 7, 9], [5, 6, 7, 10, 11, 12, 13]]
    options = [[[20, 21, 22, 23], [22]]] * 3
    ranks = Engine(model, tokenizer).rank(prompts, options)
    for row, prompt in enumerate(prompts):
        for column, option in enumerate(options[row]):
            ids = torch.tensor([[*prompt, *option]])
            with torch.no_grad():
                logits = model(ids, use_cache=False).logits[0, -len(option) - 1 : -1]
            expected = logits.log_softmax(-1)[range(len(option)), option].sum()
            assert float(ranks[row, column]) == pytest.approx(float(expected), abs=1e-4)
    written = model.generate(IDS, max_new_tokens=8, do_sample=False, use_cache=True)
    assert torch.equal(written, model.generate(IDS, max_new_tokens=8, do_sample=False, use_cache=False))
    shapes = inputs_of(model)
    model.generate(IDS, max_new_tokens=8, do_sample=False)
    assert len(shapes) < 8  # some words were written without this block


def test_the_predictor_learns_whom_the_router_takes_and_moves_nothing_else():
    loop = loop_of(make_tiny, MixtureOfDepths(), SFT(), ROWS, layout=pack, max_steps=60, learning_rate=1e-2)
    list(loop.fit())
    model, batch = loop.policy.model, pack(ROWS)
    seen = {}
    block = model.model.layers[1]
    block.register_forward_pre_hook(lambda _, args, kwargs: seen.update(x=args[0]), with_kwargs=True)
    with torch.no_grad():
        loop.policy.states(batch)
        scores, likely = block.router(seen["x"])[0, :, 0], block.predictor(seen["x"])[0, :, 0]
    right = count = 0
    for own, said in zip(scores.split(batch.lengths.tolist()), likely.split(batch.lengths.tolist()), strict=True):
        taken = torch.zeros_like(own, dtype=torch.bool)
        taken[own.topk(-(-len(own) // 2)).indices] = True
        right, count = right + int((taken == (said > 0)).sum()), count + len(own)
    assert right / count > 0.8
    slopes = []
    for part in (1.0, 0.0):
        loop.optimizer.zero_grad(set_to_none=False)
        loss = loop.objective.loss(batch, **loop.policy.look(batch, loop.objective.looks()))
        (part * loss.sum).backward()
        slopes.append({name: weight.grad.clone() for name, weight in loop.weights.items()})
    alone = {name for name, slope in slopes[1].items() if slope.any()}
    assert alone == {name for name in slopes[1] if "predictor" in name}
    assert all(slopes[0][name].equal(slopes[1][name]) for name in alone)


def test_a_run_is_saved_as_what_it_is_and_loads_again(model_folder, reviews, tmp_path):
    from transformers import AutoModelForCausalLM

    train(run_of(model_folder, reviews, tmp_path / "run", MixtureOfDepths(), SFT(), max_steps=3), quiet=True)
    folder = tmp_path / "run" / "model"
    said = json.loads((folder / "config.json").read_text())
    assert said["model_type"] == "mixture_of_depths" and said["blocks_of"] == "llama"
    assert said["mixture_of_depths"] == {"capacity": 0.5, "blocks": [1]}
    with pytest.raises(ValueError, match="mixture_of_depths"):
        AutoModelForCausalLM.from_pretrained(folder)
    tuned = load_run(tmp_path / "run")
    loaded, _ = load_model(folder)
    with torch.no_grad():
        assert torch.equal(tuned.model(IDS).logits, loaded.eval()(IDS).logits)
    assert tuned.chat("judge: a warm film", 4) is not None
    train(run_of(folder, reviews, tmp_path / "further", Full(), SFT(), max_steps=1), quiet=True)
    again = load_run(tmp_path / "further").model.model.layers[1]
    assert json.loads((tmp_path / "further" / "model" / "config.json").read_text())["model_type"] == said["model_type"]
    assert not again.predictor[0].weight.equal(loaded.model.layers[1].predictor[0].weight)
    with pytest.raises(RecipeError, match="is a mixture of depths already; train it by method=full"):
        attach(loaded, MixtureOfDepths())


def test_what_was_learnt_is_what_is_loaded(model_folder, tmp_path):
    from tunesmith.model.load import load_tokenizer, save_tuned
    from tunesmith.precision.plain import FP32

    model = mixed().eval()
    save_tuned(model, MixtureOfDepths(), load_tokenizer(model_folder), tmp_path, "tiny", FP32())
    with torch.no_grad():
        assert torch.allclose(load_model(tmp_path / "model")[0].eval()(IDS).logits, model(IDS).logits, atol=1e-6)
    for change, says in (
        ({"mixture_of_depths": {"capacity": 0.5, "blocks": [7]}}, "names block 7, and the model has 2"),
        ({"mixture_of_depths": {"capacity": 2, "blocks": [1]}}, "must have a capacity between 0 and 1"),
        ({"mixture_of_depths": True}, "must say which blocks choose"),
        ({"mixture_of_depths": {"capacity": 0.5, "blocks": [0, 1]}}, "lacks model.layers.0.predictor.* of its routers"),
        ({"blocks_of": "evil"}, "blocks_of: transformers knows no 'evil'"),
    ):
        file = tmp_path / "model" / "config.json"
        kept = file.read_text()
        file.write_text(json.dumps(json.loads(kept) | change))
        with pytest.raises((RecipeError, CheckpointError), match=says) as refusal:
            load_model(tmp_path / "model")
        assert "\n" not in str(refusal.value)
        file.write_text(kept)


def others():
    import transformers as hf

    size = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    return {
        "windows": hf.MistralForCausalLM(hf.MistralConfig(**size, **heads, sliding_window=4)),
        "another kind": hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4)),
    }


@pytest.mark.parametrize("name", ["windows", "another kind"])
def test_models_of_another_kind_are_refused(name):
    with pytest.raises(RecipeError, match="mixture_of_depths is for models of Llama's kind"):
        attach(others()[name], MixtureOfDepths())


def test_a_family_like_llamas_is_not():
    import transformers as hf

    size = {"vocab_size": 384, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 8}
    model = hf.Qwen3ForCausalLM(hf.Qwen3Config(**size, num_attention_heads=4, num_key_value_heads=2))
    expected = model.eval()(IDS).logits
    assert torch.allclose(attach(model, MixtureOfDepths()).eval()(IDS).logits, expected, atol=1e-5)


def test_every_other_block_chooses_but_for_the_last():
    def numbers(blocks, **options):
        import transformers as hf

        size = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4}
        model = hf.LlamaForCausalLM(hf.LlamaConfig(**size, num_hidden_layers=blocks))
        return attach(model, MixtureOfDepths(**options)).config.mixture_of_depths["blocks"]

    assert numbers(6) == [1, 3] and numbers(5) == [1, 3] and numbers(6, every=1) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("options", "says"),
    [({"capacity": 0.0}, "method.capacity: must be more than 0"), ({"every": 3}, "method.every: 3 is more than the 2")],
    ids=["nothing", "no block"],
)
def test_options_that_make_no_sense_are_refused(options, says):
    with pytest.raises(RecipeError, match=says):
        attach(make_tiny(), MixtureOfDepths(**options))


def test_blocks_that_take_other_tokens_each_time_are_not_translated(reviews, tmp_path):
    run = run_of(tmp_path / "none", reviews, tmp_path / "run", MixtureOfDepths(), SFT(), torch_compile=True)
    with pytest.raises(RecipeError, match="train.torch_compile: mixture_of_depths takes other tokens each time"):
        train(run, quiet=True)
