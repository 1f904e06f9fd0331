"""Adapters go on, stand on one another, and become one."""

import pytest
import torch
from conftest import make_tiny
from tinyrun import loop_of, sequences_for
from training.test_resume import run_of

from tunesmith import load_run, train
from tunesmith.errors import RecipeError
from tunesmith.methods.ia3 import IA3
from tunesmith.methods.lora import LoRA
from tunesmith.methods.prefix_tuning import PrefixTuning
from tunesmith.methods.prompt_tuning import PromptTuning
from tunesmith.model.load import attach, hushed, load_model, load_tuned
from tunesmith.objectives.sft import SFT

IDS = torch.tensor([[5, 6, 7, 8, 9, 40, 41, 12]])


def adapter(folder, method, seed=0):
    """An adapter that has learnt a little."""
    torch.manual_seed(seed)
    loop = loop_of(make_tiny, method, SFT(), sequences_for(SFT())[seed:], max_steps=3, learning_rate=3e-2)
    list(loop.fit())
    loop.policy.model.peft_config["default"].base_model_name_or_path = str(folder.parent / "tiny")
    loop.method.save(loop.policy.model, folder / "adapter")
    return str(folder)


def logits(model):
    with torch.no_grad():
        return model.eval()(IDS).logits[:, -IDS.shape[1] :]


@pytest.mark.parametrize(
    "method",
    [{"r": 4, "kind": LoRA}, {"kind": IA3}, {"num_virtual_tokens": 4, "kind": PromptTuning},
     {"num_virtual_tokens": 4, "kind": PrefixTuning}], ids=lambda method: method["kind"].name,
)  # fmt: skip
def test_training_goes_on_where_an_adapter_ended(method, model_folder, tmp_path):
    kind, options = method["kind"], {key: value for key, value in method.items() if key != "kind"}
    first = adapter(tmp_path / "first", kind(**options))
    expected = logits(load_tuned(tmp_path / "first", model_folder))
    going_on = attach(make_tiny(), kind(**options, adapter=first))
    assert torch.allclose(logits(going_on), expected, atol=1e-5)
    assert any(weight.requires_grad for weight in going_on.parameters())


def test_a_new_adapter_stands_on_an_old_one(model_folder, reviews, tmp_path):
    from dataclasses import replace

    from peft import PeftModel

    first = adapter(tmp_path / "first", LoRA(r=4))
    run = run_of(model_folder, reviews, tmp_path / "second", IA3(), SFT(), max_steps=2)
    train(replace(run, model=replace(run.model, adapters=(first,))), quiet=True)
    with hushed():
        below = PeftModel.from_pretrained(make_tiny(), tmp_path / "first" / "adapter").merge_and_unload()
        assert torch.allclose(logits(load_run(tmp_path / "second").untouched), logits(below), atol=1e-5)
        expected = logits(PeftModel.from_pretrained(below, tmp_path / "second" / "adapter"))
    tuned = load_run(tmp_path / "second").model
    assert torch.allclose(logits(tuned), expected, atol=1e-5)
    assert not torch.allclose(logits(tuned), logits(load_model(model_folder)[0]), atol=1e-3)


def deltas(folder, model_folder):
    """What an adapter adds to each weight."""
    tuned = load_tuned(folder, model_folder)
    layers = {name: module for name, module in tuned.named_modules() if hasattr(module, "get_delta_weight")}
    return {name: layer.get_delta_weight("default") for name, layer in layers.items()}


@pytest.mark.parametrize(("how", "ranks"), [("linear", (4, 4)), ("cat", (4, 2)), ("svd", (4, 2))])
def test_several_adapters_become_their_weighted_sum(how, ranks, model_folder, tmp_path):
    from tunesmith.cli import app

    names = [adapter(tmp_path / f"a{n}", LoRA(r=rank), n) for n, rank in enumerate(ranks)]
    out = tmp_path / "sum" / "adapter"
    out.parent.mkdir()
    words = ["adapters", "merge", *names, "--out", str(out), "--how", how, "--weights", "0.7,0.3"]
    app(words, standalone_mode=False)
    one, other = (deltas(tmp_path / f"a{n}", model_folder) for n in range(2))
    for name, delta in deltas(out.parent, model_folder).items():
        expected = 0.7 * one[name] + 0.3 * other[name]
        if how == "cat":  # the only one that is exact: linear adds the matrices, svd cuts the sum to a rank
            assert torch.allclose(delta, expected, atol=1e-6), name
        else:
            near = torch.cosine_similarity(delta.flatten(), expected.flatten(), 0)
            assert near > 0.5, name


@pytest.mark.parametrize("how", ["ties", "dare_linear", "dare_ties", "magnitude_prune"])
def test_what_is_dropped_is_dropped(how, model_folder, tmp_path):
    from safetensors.torch import load_file

    from tunesmith.cli import app

    names = [adapter(tmp_path / f"a{n}", LoRA(r=4), n) for n in range(2)]
    out = tmp_path / "made"
    app(["adapters", "merge", *names, "--out", str(out), "--how", how, "--density", "0.25"], standalone_mode=False)
    made = torch.cat([weight.flatten() for weight in load_file(out / "adapter_model.safetensors").values()])
    assert 0.1 < float((made != 0).float().mean()) < 0.5


REFUSED = {
    "nothing there": (lambda tmp: LoRA(adapter=str(tmp / "none")), "method.adapter: .*none holds no adapter"),
    "another method": (lambda tmp: IA3(adapter=str(tmp)), "is of the kind LORA; the method here is IA3"),
    "other options": (lambda tmp: LoRA(r=2, adapter=str(tmp)), "was made with lora_alpha 8, and the recipe has 4"),
    "moved base": (lambda tmp: LoRA(r=4, init_lora_weights="pissa", adapter=str(tmp)), "pissa begins in the weights"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_an_adapter_to_go_on_from_must_be_of_the_same_kind(fault, tmp_path):
    make, says = REFUSED[fault]
    adapter(tmp_path, LoRA(r=4))
    with pytest.raises(RecipeError, match=says) as refusal:
        attach(make_tiny(), make(tmp_path))
    assert "\n" not in str(refusal.value)


def test_what_a_network_has_made_cannot_go_on(tmp_path):
    method = {"num_virtual_tokens": 4, "prefix_projection": True, "encoder_hidden_size": 8}
    adapter(tmp_path, PrefixTuning(**method))
    with pytest.raises(RecipeError, match="holds what a network has made, and not the network"):
        attach(make_tiny(), PrefixTuning(**method, adapter=str(tmp_path)))


def test_no_weights_take_in_a_prompt(model_folder, tmp_path):
    prompt = adapter(tmp_path, PromptTuning(num_virtual_tokens=4))
    with pytest.raises(RecipeError, match="is of the kind PROMPT_TUNING, which no weights can take in"):
        load_model(model_folder, adapters=(prompt,))
