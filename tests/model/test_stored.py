"""Models that are quantised on disk: of what their config says, the layout of weights is obeyed, and no more."""

import json

import pytest
import torch
from training.test_resume import run_of

from tunesmith import load_run
from tunesmith.errors import BadEnvironment, RecipeError
from tunesmith.methods.full import Full
from tunesmith.methods.lora import LoRA
from tunesmith.model.hub import locate
from tunesmith.model.load import load_model
from tunesmith.objectives.sft import SFT
from tunesmith.precision.bitsandbytes import NF4, LLMInt8
from tunesmith.precision.plain import BF16
from tunesmith.training.train import train

IDS = torch.tensor([[5, 6, 7, 8, 9, 40, 41, 12]])
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False, "sym": True}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"}
AQLM = {"quant_method": "aqlm", "in_group_size": 8, "out_group_size": 1, "num_codebooks": 1, "nbits_per_codebook": 16}
EETQ = {"quant_method": "eetq", "weights": "int8"}
BNB = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}


def say(folder, **settings):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


@pytest.fixture(params=[NF4(), NF4(double_quant=False), LLMInt8()], ids=["nf4 twice", "nf4", "llm_int8"])
def quantised(request, model_folder, tokenizer, tmp_path):
    """A folder as transformers saves a model that bitsandbytes has quantised."""
    pytest.importorskip("bitsandbytes")
    model, _ = load_model(model_folder, request.param)
    model.save_pretrained(tmp_path / "quantised")
    tokenizer.save_pretrained(tmp_path / "quantised")
    with torch.no_grad():
        return tmp_path / "quantised", model.eval()(IDS).logits


def test_a_quantised_model_says_what_it_said(quantised):
    folder, said = quantised
    model, _ = load_model(locate(str(folder)))
    assert "bit" in type(model.model.layers[0].self_attn.q_proj).__name__
    with torch.no_grad():
        assert torch.equal(model.eval()(IDS).logits, said)
        assert load_model(folder, BF16())[0].eval()(IDS).logits.dtype == torch.bfloat16


def test_an_adapter_is_trained_over_it(quantised, reviews, tmp_path):
    folder, said = quantised
    train(run_of(folder, reviews, tmp_path / "run", LoRA(r=4), SFT()), quiet=True)
    note = json.loads((tmp_path / "run" / "adapter" / "trained_on.json").read_text())
    assert note == {"precision": {"name": "auto"}, "numbers": "float32", "quantised_by": "bitsandbytes"}
    tuned = load_run(tmp_path / "run").model
    with torch.no_grad(), tuned.disable_adapter():
        assert torch.equal(tuned(IDS).logits, said)
    with torch.no_grad():
        assert not torch.allclose(tuned(IDS).logits, said)


def test_what_its_weights_cannot_do_is_refused_before_they_are_read(quantised, reviews, tmp_path):
    folder, _ = quantised
    with pytest.raises(RecipeError, match="quantised by bitsandbytes, holds weights in few bits.*full trains"):
        train(run_of(folder, reviews, tmp_path / "run", Full(), SFT()), quiet=True)
    with pytest.raises(RecipeError, match="model.precision: the weights in .* are quantised already, by bitsandbytes"):
        load_model(folder, NF4())
    with pytest.raises(RecipeError, match="model.adapters: cannot be merged into weights that bitsandbytes"):
        load_model(folder, adapters=["somewhere"])
    with pytest.raises(RecipeError, match="as it was before it was quantised, and .* does not have it"):
        train(run_of(folder, reviews, tmp_path / "loftq", LoRA(r=4, init_lora_weights="loftq"), SFT()), quiet=True)
    assert not (tmp_path / "run" / "adapter").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("said", [GPTQ, AWQ, AQLM, EETQ], ids=lambda said: said["quant_method"])
def test_what_needs_a_gpu_says_so(said, model_folder):
    say(model_folder, quantization_config=said)
    with pytest.raises(
        RecipeError, match=rf"quantised by {said['quant_method']}, which needs a GPU; take the model in"
    ):
        load_model(locate(str(model_folder)))


@pytest.mark.parametrize("said", [GPTQ, AWQ, AQLM, EETQ], ids=lambda said: said["quant_method"])
def test_on_a_gpu_a_missing_package_is_named(said, model_folder, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda: True)
    monkeypatch.setattr("tunesmith.precision.base.find_spec", lambda package: None)
    say(model_folder, quantization_config=said)
    with pytest.raises(BadEnvironment, match=r"is quantised by \w+, and needs (\w+), .* pip install 'tunesmith\[\1\]'"):
        load_model(model_folder)


FAULTS = {
    "another kind": ({"quant_method": "quanto"}, "quantization_config: quantised weights of the kind 'quanto'"),
    "no kind": ({"bits": 4}, "quantization_config: quantised weights of the kind 'None'"),
    "a list": (["gptq"], "quantization_config: quantised weights of the kind"),
    "an unknown key": (GPTQ | {"dynamic": {"-:.*": {}}}, "quantization_config: dynamic: is not known of gptq"),
    "a head in few bits": (GPTQ | {"lm_head": True}, "quantization_config: lm_head: is not known of gptq"),
    "bits of another kind": (GPTQ | {"bits": "4"}, "bits: must be one of 2, 3, 4, 8"),
    "yes for a number": (GPTQ | {"bits": True}, "bits: must be one of 2, 3, 4, 8"),
    "a pattern": (AWQ | {"modules_to_not_convert": ["(a+)+$"]}, "modules_to_not_convert: must be names of modules"),
    "a format of another": (AWQ | {"version": "marlin"}, "version: must be one of gemm, GEMM"),
    "weights that learn": (BNB | {"llm_int8_has_fp16_weight": True}, "llm_int8_has_fp16_weight: must be one of False"),
    "another storage": (BNB | {"bnb_4bit_quant_storage": "bfloat16"}, "bnb_4bit_quant_storage: must be one of uint8"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_not_known_is_refused(fault, model_folder):
    said, sentence = FAULTS[fault]
    say(model_folder, quantization_config=said)
    for find in (lambda: locate(str(model_folder)), lambda: load_model(model_folder)):
        with pytest.raises(RecipeError, match=sentence) as refusal:
            find()
        assert "\n" not in str(refusal.value)


def test_which_kernel_computes_is_not_the_folders_word(quantised):
    from tunesmith.model.foreign import read_config

    folder, _ = quantised
    said = json.loads((folder / "config.json").read_text())["quantization_config"]
    say(folder, quantization_config=said | {"backend": "evil/kernel", "bnb_4bit_compute_dtype": "load"})
    assert not {"backend", "bnb_4bit_compute_dtype"} & read_config(folder).quantization_config.keys()
    load_model(folder)
