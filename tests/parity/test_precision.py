"""Quantised weights: as near to the whole ones as their bits allow, and trained over as plain PEFT would."""

import hashlib
import json
import subprocess
import sys
from dataclasses import replace

import peft
import pytest
import torch
from conftest import make_tiny
from tinyrun import loop_of, sequences_for
from training.test_resume import StopsAfter, run_of, weights

from tunesmith import load_run
from tunesmith.data.batch import pad
from tunesmith.errors import BadEnvironment, RecipeError, Stopped
from tunesmith.methods.base import method
from tunesmith.methods.lora import LoRA
from tunesmith.model.load import hushed, load_model
from tunesmith.objectives.classify import Classify
from tunesmith.objectives.sft import SFT
from tunesmith.precision.base import precision
from tunesmith.precision.bitsandbytes import FP4, NF4, Bnb4Bit, LLMInt8
from tunesmith.precision.hqq import HQQ
from tunesmith.precision.plain import BF16, FP32
from tunesmith.precision.torchao import TorchaoInt4, TorchaoInt8
from tunesmith.training.doctor import stir
from tunesmith.training.train import resume, train

HELD = {
    "nf4": NF4(),
    "nf4 bf16": NF4(compute_dtype="bf16"),
    "fp4": FP4(double_quant=False),
    "llm_int8": LLMInt8(),
    "hqq": HQQ(group_size=32),
    "torchao_int8": TorchaoInt8(),
    "torchao_int4": TorchaoInt4(),
}
EXACT = [name for name in HELD if name not in ("llm_int8", "nf4 bf16")]
"""Those that compute with nothing but the quantised weights, in full."""
IDS = torch.tensor([[5, 6, 7, 8, 9, 40, 41, 12]])


@pytest.fixture
def held(request):
    """A precision whose package is there."""
    made = HELD[request.param] if isinstance(request.param, str) else request.param
    pytest.importorskip(made.package, reason=f"needs: pip install 'tunesmith[{made.package}]'")
    return made


def each(*names):
    return pytest.mark.parametrize("held", names or list(HELD), ids=str, indirect=True)


def whole(layer):
    """The weights that a quantised layer computes with."""
    if hasattr(layer, "dequantize"):
        return layer.dequantize()
    if hasattr(layer.weight, "quant_state"):
        from bitsandbytes.functional import dequantize_4bit

        return dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    if hasattr(layer.weight, "SCB"):
        scale = layer.state.SCB if layer.weight.SCB is None else layer.weight.SCB  # once it has computed, it lies there
        return layer.weight.data * scale[:, None] / 127
    return layer.weight.dequantize()


def quantised(model) -> dict:
    """Its quantised layers by name."""
    ordinary = torch.nn.Parameter, type(None)
    return {
        path: layer
        for path, layer in model.named_modules()
        if hasattr(layer, "in_features")
        and type(getattr(layer, "weight", None)) not in ordinary
        or hasattr(layer, "W_q")
    }


def as_whole(model):
    """The tiny model in full, with the very weights that a quantised one computes with."""
    plain = make_tiny()
    for path, layer in quantised(model).items():
        with torch.no_grad():
            plain.get_submodule(path).weight.copy_(whole(layer))
    return plain


def bits_of(model) -> dict[str, str]:
    """A hash of the numbers of every quantised layer."""
    found = {}
    for path, layer in quantised(model).items():
        weight = layer.W_q if hasattr(layer, "W_q") else layer.weight
        numbers = getattr(weight, "qdata", weight).detach().contiguous()
        found[path.replace(".base_layer", "")] = hashlib.sha256(numbers.numpy().tobytes()).hexdigest()
    return found


# --- numbers ----------------------------------------------------------------------------------------------------------

STEP = {"hqq": (4, 32), "torchao_int8": (8, None), "torchao_int4": (4, 32), "llm_int8": (8, None)}
"""Bits, and weights that share a scale: no weight is further off than a step of such a grid, from least to largest."""


@each()
def test_the_blocks_are_quantised_and_nothing_else(held, model_folder):
    model, _ = load_model(model_folder, held)
    found = quantised(model)
    assert len(found) == 14 and all(".layers." in path for path in found)
    assert type(model.lm_head) is torch.nn.Linear and type(model.lm_head.weight) is torch.nn.Parameter
    assert model.model.embed_tokens.weight.dtype == held.dtype()


@each(*STEP)
def test_no_weight_is_further_off_than_a_step_of_its_grid(held, model_folder):
    bits, group = STEP[held.name]
    for path, layer in quantised(load_model(model_folder, held)[0]).items():
        exact = make_tiny().get_submodule(path).weight.detach()
        rows = exact.reshape(-1, group or exact.shape[1])
        step = 2 * rows.abs().amax(1, keepdim=True) / (2**bits - 2)
        off = (whole(layer) - exact).reshape_as(rows).abs()
        assert off.max() > 0 and bool((off <= step).all()), path


@pytest.mark.parametrize("held", ["nf4", "fp4"], indirect=True)
def test_four_bits_have_the_sixteen_values_of_their_paper(held, model_folder):
    """Values of a block of 64 are at most sixteen, and each weight takes the nearest."""
    for path, layer in quantised(load_model(model_folder, replace(held, double_quant=False))[0]).items():
        exact, got = make_tiny().get_submodule(path).weight.detach().view(-1, 64), whole(layer).view(-1, 64)
        values = layer.weight.quant_state.code
        scaled = exact / exact.abs().amax(1, keepdim=True)
        nearest = (scaled[..., None] - values).abs().min(-1).values
        off = ((got / exact.abs().amax(1, keepdim=True)) - scaled).abs()
        assert len(values.unique()) <= 16 and torch.allclose(off, nearest, atol=1e-5), path


@each(*EXACT)
def test_logits_are_those_of_a_whole_model_with_the_same_weights(held, model_folder):
    model, _ = load_model(model_folder, held)
    with torch.no_grad():
        got, expected, exact = (one.eval()(IDS).logits for one in (model, as_whole(model), make_tiny()))
    assert torch.allclose(got, expected, atol=1e-5)
    assert 1e-4 < (got - exact).norm() / exact.norm() < 0.2


@pytest.mark.parametrize("held", ["nf4 bf16", "llm_int8"], indirect=True)
def test_what_computes_in_less_is_as_near_as_that_allows(held, model_folder):
    model, _ = load_model(model_folder, held)
    with torch.no_grad():
        got, expected = (one.eval()(IDS).logits.float() for one in (model, as_whole(model)))
    assert (got - expected).norm() / expected.norm() < 0.02


@pytest.mark.parametrize("held", [HQQ(nbits=bits, group_size=32) for bits in (8, 6, 5, 4, 3, 2, 1)], indirect=True)
def test_fewer_bits_are_further_off(held, model_folder):
    model, _ = load_model(model_folder, held)
    off = torch.stack([
        (whole(layer) - make_tiny().get_submodule(path).weight).norm() / make_tiny().get_submodule(path).weight.norm()
        for path, layer in quantised(model).items()
    ]).mean()  # fmt: skip
    grid = 2 / (2**held.nbits - 1)  # from -1 to 1, and weights here lie within about 2.3 deviations
    assert 0.2 * grid < off < 1.1 * grid


# --- methods ----------------------------------------------------------------------------------------------------------

FITS = [name for name, entry in method.all().items() if getattr(entry, "detachable", False) is not False]
NO_LAYERS = {"hqq": {"adalora", "ia3"}}
"""Methods for which PEFT has no layer over such weights."""
FEW = {"lora": {"r": 4}, "adalora": {"init_r": 4, "target_r": 2}}


def loop_over(model, name, **settings):
    made = method[name](**FEW.get(name, {}))
    return loop_of(lambda **_: model, made, SFT(), sequences_for(SFT()), **{"max_grad_norm": 0} | settings)


@each(*EXACT)
@pytest.mark.parametrize("name", FITS)
def test_loss_and_gradient_are_those_over_whole_weights(held, name, model_folder):
    """Whatever the method: a quantised layer is a layer with other numbers."""
    model, _ = load_model(model_folder, held)
    exact = as_whole(model)
    if name in NO_LAYERS.get(held.name, ()):
        with pytest.raises(RecipeError, match=f"method: {name} does not fit"):
            loop_over(model, name)
        return
    ours, theirs = loop_over(model, name), loop_over(exact, name)
    assert ours.weights.keys() == theirs.weights.keys()
    for key, weight in theirs.weights.items():
        assert torch.equal(weight, ours.weights[key]), key
    losses = []
    for loop in (ours, theirs):
        stir(loop.weights)
        tallies, _ = loop.gradient(0)
        losses.append(float(tallies["loss"].mean()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    largest = max(float(weight.grad.abs().max()) for weight in theirs.weights.values() if weight.grad is not None)
    for key, weight in theirs.weights.items():
        if weight.grad is not None:
            assert torch.allclose(ours.weights[key].grad, weight.grad, atol=1e-4 * largest, rtol=1e-3), key


@each()
def test_lora_is_plain_peft_over_the_same_weights(held, model_folder):
    loop = loop_over(load_model(model_folder, held)[0], "lora")
    stir(loop.weights)
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj",
                             "up_proj", "down_proj"], task_type="CAUSAL_LM")  # fmt: skip
    with hushed():
        plain = peft.get_peft_model(load_model(model_folder, held)[0], config).train()
    learning = {name: weight for name, weight in plain.named_parameters() if weight.requires_grad}
    assert learning.keys() == loop.weights.keys()
    with torch.no_grad():
        for name, weight in learning.items():
            weight.copy_(loop.weights[name])
    batch = pad(loop.sequences)
    labels = batch.ids.masked_fill(~batch.learn, -100)
    loss = plain(input_ids=batch.ids, attention_mask=batch.attend, labels=labels).loss
    loss.backward()
    tallies, _ = loop.gradient(0)
    loop.divide(float(tallies["loss"].count))
    near = 1e-5 if held.dtype() == torch.float32 else 3e-2
    assert float(tallies["loss"].mean()) == pytest.approx(float(loss.detach()), rel=near)
    for name, weight in learning.items():
        ours, theirs = loop.weights[name].grad, weight.grad
        assert (ours - theirs).norm() <= max(near * 10, 1e-4) * theirs.norm() + 1e-7, name


@each()
def test_loss_falls_and_the_weights_below_stay(held, model_folder):
    model, _ = load_model(model_folder, held)
    before = bits_of(model)
    loop = loop_over(model, "lora", max_steps=12, learning_rate=1e-2)
    began = {name: weight.detach().clone() for name, weight in loop.weights.items()}
    losses = [step.loss for step in loop.fit()]
    assert losses[-1] < losses[0] - 0.2 and losses == sorted(losses, reverse=True)
    assert bits_of(loop.policy.model.get_base_model()) == before and len(before) == 14
    assert not any(torch.equal(weight, began[name]) for name, weight in loop.weights.items())


@each("nf4", "llm_int8", "hqq", "torchao_int4")
def test_loftq_begins_at_the_nearest_to_what_was_lost(held, model_folder):
    """Of all updates of a rank none is nearer (Eckart & Young 1936): what is left are the other singular values."""
    loop = loop_of(
        lambda **_: load_model(model_folder, held)[0],
        LoRA(r=4, lora_alpha=12, rank_pattern={"v_proj": 2}, init_lora_weights="loftq"),
        SFT(),
        sequences_for(SFT()),
    )
    layers = [one for one in loop.policy.model.get_base_model().named_modules() if hasattr(one[1], "lora_A")]
    assert len(layers) == 14
    for path, layer in layers:
        exact = make_tiny().get_submodule(path).weight.detach()
        lost = exact - whole(layer.get_base_layer())
        rank = 2 if path.endswith("v_proj") else 4
        left = (lost - layer.get_delta_weight("default").detach()).norm()
        assert float(left) == pytest.approx(float(torch.linalg.svdvals(lost)[rank:].norm()), rel=1e-3), path
        assert left < lost.norm()


@each("nf4", "hqq")
def test_loftq_says_what_is_nearer_to_the_whole_model(held, model_folder):
    said = {}
    for begins in ("default", "loftq"):
        model = load_model(model_folder, held)[0]
        loop = loop_of(lambda model=model, **_: model, LoRA(r=8, init_lora_weights=begins), SFT(), sequences_for(SFT()))
        with torch.no_grad():
            said[begins] = loop.policy.model.eval()(IDS).logits
    exact = make_tiny().eval()(IDS).logits.detach()
    assert (said["loftq"] - exact).norm() < 0.85 * (said["default"] - exact).norm()


@each("nf4")
def test_a_run_with_loftq_is_asked_over_the_same_weights(held, model_folder, reviews, tmp_path):
    run = over(run_of(model_folder, reviews, tmp_path / "run", LoRA(r=4, init_lora_weights="loftq"), SFT()), held)
    train(run, quiet=True)
    tuned = load_run(tmp_path / "run").model
    assert bits_of(tuned.get_base_model()) == bits_of(load_model(model_folder, held)[0])
    merged = replace(run, model=replace(run.model, adapters=(str(tmp_path / "run"),)), output=str(tmp_path / "next"))
    with pytest.raises(RecipeError, match="as it was before it was quantised"):
        train(merged, quiet=True)
    with pytest.raises(RecipeError, match="method.init_lora_weights: loftq and use_dora exclude each other"):
        train(replace(run, method=LoRA(use_dora=True, init_lora_weights="loftq"), output=str(tmp_path / "dora")))


# --- the line ---------------------------------------------------------------------------------------------------------


def over(run, held):
    return replace(run, model=replace(run.model, precision=held))


NEW_PROCESS = """
import sys, warnings, torch
from safetensors.torch import save_file
warnings.simplefilter("ignore")
from tunesmith import load_run
with torch.no_grad():
    for run in sys.argv[1:]:
        said = load_run(run).model(torch.tensor([[5, 6, 7, 8, 9, 40, 41, 12]])).logits
        save_file({"said": said.contiguous()}, run + ".safetensors")
"""


@each("nf4", "hqq", "torchao_int8")
def test_a_run_says_the_same_in_a_new_process(held, model_folder, reviews, tmp_path):
    from safetensors.torch import load_file

    said = {}
    for objective in (SFT(), Classify()):
        run = tmp_path / objective.name
        train(over(run_of(model_folder, reviews, run, LoRA(r=4), objective), held), quiet=True)
        note = json.loads((run / "adapter" / "trained_on.json").read_text())
        assert note["precision"]["name"] == held.name and note["quantised_by"] == held.package
        tuned = load_run(run).model
        assert quantised(tuned)
        with torch.no_grad():
            said[str(run)] = tuned(IDS).logits
            with tuned.disable_adapter():
                assert not torch.allclose(tuned(IDS).logits, said[str(run)])
    subprocess.run([sys.executable, "-c", NEW_PROCESS, *said], check=True, capture_output=True)
    for run, logits in said.items():
        assert torch.equal(load_file(f"{run}.safetensors")["said"], logits), run


@each("nf4", "hqq", "torchao_int4")
def test_stopped_and_resumed_equals_uninterrupted(held, model_folder, reviews, tmp_path):
    lora = LoRA(r=4, lora_dropout=0.1)
    train(over(run_of(model_folder, reviews, tmp_path / "whole", lora, SFT()), held), quiet=True)
    with pytest.raises(Stopped):
        train(over(run_of(model_folder, reviews, tmp_path / "parts", lora, SFT()), held), [StopsAfter(3)], quiet=True)
    resume(tmp_path / "parts", quiet=True)
    assert weights(tmp_path / "whole") == weights(tmp_path / "parts")


@each("nf4", "hqq", "torchao_int8")
def test_adapters_are_merged_while_the_weights_are_whole(held, model_folder, reviews, tmp_path):
    train(run_of(model_folder, reviews, tmp_path / "run", LoRA(r=4), SFT()), quiet=True)
    adapter = [str(tmp_path / "run")]
    load_model(model_folder, FP32(), (), adapter)[0].save_pretrained(tmp_path / "merged")
    ours, theirs = load_model(model_folder, held, (), adapter)[0], load_model(tmp_path / "merged", held)[0]
    assert bits_of(ours) == bits_of(theirs) != bits_of(load_model(model_folder, held)[0])


# --- options and refusals ---------------------------------------------------------------------------------------------

OTHERWISE = {
    "kind": (Bnb4Bit(), Bnb4Bit(bnb_4bit_quant_type="fp4")),
    "double": (NF4(), NF4(double_quant=False)),
    "computed": (NF4(), NF4(compute_dtype="bf16")),
    "threshold": (LLMInt8(), LLMInt8(llm_int8_threshold=0.5)),
    "bits": (HQQ(group_size=32), HQQ(group_size=32, nbits=3)),
    "groups": (HQQ(group_size=32), HQQ(group_size=16)),
    "torchao groups": (TorchaoInt8(), TorchaoInt8(group_size=16)),
    "torchao int4 groups": (TorchaoInt4(), TorchaoInt4(group_size=16)),
}


@pytest.mark.parametrize("option", OTHERWISE)
def test_every_option_changes_what_is_said(option, model_folder):
    one, other = OTHERWISE[option]
    pytest.importorskip(one.package, reason=f"needs: pip install 'tunesmith[{one.package}]'")
    with torch.no_grad():
        said = [load_model(model_folder, held)[0].eval()(IDS).logits for held in (one, other)]
    assert not torch.equal(*said)


def test_names_of_one_thing_mean_one_thing(model_folder):
    pytest.importorskip("bitsandbytes")
    pairs = (NF4(), Bnb4Bit()), (FP4(), Bnb4Bit(bnb_4bit_quant_type="fp4"))
    for pair in pairs:
        assert len({json.dumps(bits_of(load_model(model_folder, held)[0])) for held in pair}) == 1


@pytest.mark.parametrize("name", [name for name in method.all() if name not in FITS])
def test_a_method_that_trains_the_weights_is_refused_over_quantised_ones(name, reviews, tmp_path):
    pytest.importorskip("bitsandbytes")
    made = over(run_of(tmp_path / "no model", reviews, tmp_path / "run", method[name](), SFT()), NF4())
    if method[name]().detachable:
        pytest.fail(f"{name} can be trained over quantised weights")
    with pytest.raises(RecipeError, match=rf"method: model.precision=nf4 .*{name} trains or changes them; take an ada"):
        train(made, quiet=True)


@pytest.mark.parametrize("begins", ["pissa", "olora"])
def test_an_update_taken_from_the_weights_is_refused_over_quantised_ones(begins, reviews, tmp_path):
    pytest.importorskip("bitsandbytes")
    lora = LoRA(init_lora_weights=begins)
    with pytest.raises(RecipeError, match="method: model.precision=nf4 .* with its usual beginning"):
        train(over(run_of(tmp_path / "no model", reviews, tmp_path / "run", lora, SFT()), NF4()), quiet=True)


@pytest.mark.parametrize("name", [name for name, entry in precision.all().items() if entry.package])
def test_a_missing_package_is_named_with_its_command(name, reviews, tmp_path, monkeypatch):
    monkeypatch.setattr("tunesmith.precision.base.find_spec", lambda package: None)
    package = precision[name].package
    run = over(run_of(tmp_path / "no model", reviews, tmp_path / "run", LoRA(), SFT()), precision[name]())
    said = rf"model.precision: {name} needs {package}, .*: pip install 'tunesmith\[{package}\]'"
    with pytest.raises(BadEnvironment, match=said):
        train(run, quiet=True)


def test_groups_that_do_not_fit_are_refused(model_folder):
    pytest.importorskip("hqq")
    with pytest.raises(RecipeError, match=r"model.precision.group_size: must be a multiple of 8 \(got 12\)"):
        HQQ(group_size=12).check()
    with pytest.raises(RecipeError, match=r"model.precision.group_size: model.layers.0.\S+ has 1024 weights"):
        load_model(model_folder, HQQ(group_size=96))


def test_groups_that_do_not_divide_a_row_are_refused(model_folder):
    pytest.importorskip("torchao")
    with pytest.raises(RecipeError, match=r"model.precision.group_size: model.layers.0.\S+ has rows of 32 weights"):
        load_model(model_folder, TorchaoInt4(group_size=48))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_float16_is_refused_on_a_cpu(reviews, tmp_path):
    for held in (precision["fp16"](), NF4(compute_dtype="fp16")):
        with pytest.raises(RecipeError, match=r"model.precision(.compute_dtype)?: fp16 needs a GPU"):
            train(over(run_of(tmp_path / "no model", reviews, tmp_path / "run", LoRA(), SFT()), held), quiet=True)


def test_words_and_options_mean_what_they_say():
    from tunesmith.config.load import load
    from tunesmith.run import Run

    def read(*words):
        return load(Run, None, ["model.path=a", "data.path=b", *words]).value.model.precision

    assert read("model.precision=bf16") == BF16()
    assert read("model.precision=nf4", "model.precision.double_quant=false") == NF4(double_quant=False)
    assert read("model.precision={name: hqq, nbits: 3}") == HQQ(nbits=3)
    with pytest.raises(RecipeError, match="nbits"):
        read("model.precision={name: hqq, nbits: 7}")


def test_bits_that_cannot_be_read_rightly_are_refused(monkeypatch):
    """As on a processor with AVX-512 by torch 2.8, which knows no way to mend what bitsandbytes does there."""
    from tunesmith.precision.bitsandbytes import read_across_rows

    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.delattr("torch.library.get_kernel", raising=False)
    with pytest.raises(BadEnvironment, match=r"reads 4 bits wrongly, .* torch 2.9 or later"):
        read_across_rows.__wrapped__()
