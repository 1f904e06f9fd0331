"""A folder from elsewhere decides what is computed, never which code is run."""

import json
import socket

import pytest
import torch

from tunesmith.errors import CheckpointError, RecipeError
from tunesmith.model.hub import locate
from tunesmith.model.load import hushed, load_model, load_tokenizer, load_tuned

CODE = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
Path({mark!r}).write_text("was run")
class EvilConfig(LlamaConfig):
    model_type = "evil"
class EvilModel(LlamaForCausalLM):
    config_class = EvilConfig
class EvilTokenizer(PreTrainedTokenizerFast):
    pass
"""
CONFIG_MAP = {"AutoConfig": "evil.EvilConfig", "AutoModelForCausalLM": "evil.EvilModel"}
CONFIG_MAP |= {"AutoModelForSequenceClassification": "evil.EvilModel"}
TOKENIZER_MAP = {"AutoTokenizer": ["evil.EvilTokenizer", "evil.EvilTokenizer"]}


def change(file, **settings):
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


@pytest.fixture
def mark(tmp_path):
    """A file that is there once the folder's code was run."""
    return tmp_path / "mark"


@pytest.fixture
def trap(model_folder, mark, monkeypatch, tmp_path):
    """A model folder with code of its own; nobody may ask a network or a person for anything."""

    def refuse(*_, **__):
        raise AssertionError("somebody was asked")

    for place in (socket, "getaddrinfo"), (socket.socket, "connect"):
        monkeypatch.setattr(*place, refuse)
    monkeypatch.setattr("builtins.input", refuse)
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(tmp_path / "modules")
    (model_folder / "evil.py").write_text(CODE.format(mark=str(mark)))
    return model_folder


def test_the_trap_would_close(trap, mark):
    """Or the tests below would prove nothing."""
    from transformers import AutoModelForCausalLM

    change(trap / "config.json", auto_map=CONFIG_MAP, model_type="evil")
    AutoModelForCausalLM.from_pretrained(trap, trust_remote_code=True)
    assert mark.exists()


def test_a_known_models_own_code_is_not_run(trap, mark, tiny):
    change(trap / "config.json", auto_map=CONFIG_MAP)
    change(trap / "tokenizer_config.json", auto_map=TOKENIZER_MAP)
    (trap / "custom_generate").mkdir()
    (trap / "custom_generate" / "generate.py").write_text(f"open({str(mark)!r}, 'w')\ndef generate(model): ...\n")
    model, _ = load_model(locate(str(trap)))
    assert type(model) is type(tiny()) and load_tokenizer(trap).is_fast
    assert not hasattr(model.config, "auto_map") and not mark.exists()


def test_a_known_models_own_head_is_not_run(trap, mark):
    """A kind that transformers knows, but not in this use: the code is passed over and the use refused."""
    change(trap / "config.json", auto_map=CONFIG_MAP, model_type="t5")
    with pytest.raises(RecipeError, match="cannot be loaded"):
        load_model(locate(str(trap)))
    assert not mark.exists()


def test_an_unknown_models_own_code_is_refused(trap, mark):
    change(trap / "config.json", auto_map=CONFIG_MAP, model_type="evil")
    for find in (lambda: locate(str(trap)), lambda: load_model(trap), lambda: load_model(trap, labels=("a", "b"))):
        with pytest.raises(RecipeError, match=r"config.json: auto_map: .*not run; take a model.*'evil'") as refusal:
            find()
        assert "\n" not in str(refusal.value) and "trust_remote_code=True" not in str(refusal.value)
    load_tokenizer(trap)
    assert not mark.exists()


def test_an_unknown_tokenizers_own_code_is_refused(trap, mark):
    change(trap / "config.json", model_type="evil")
    change(trap / "tokenizer_config.json", auto_map=TOKENIZER_MAP, tokenizer_class="EvilTokenizer")
    with pytest.raises(
        RecipeError, match=r"tokenizer_config.json: auto_map: .*not run; put a tokenizer.json"
    ) as refusal:
        load_tokenizer(trap)
    assert "\n" not in str(refusal.value) and not mark.exists()


WISHES = [
    {"attn_implementation": "evil/kernel"},
    {"_attn_implementation": "evil/kernel@main:attention"},
    {"attn_implementation": "kernels-community/flash-attn3"},
    {"_attn_implementation": "flash_attention_3"},
    {"attn_implementation": "flash_attention_2"},
    {"attn_implementation": {"": "evil/kernel"}},
    {"attn_implementation": "nonsense"},
    {"experts_implementation": "deepgemm"},
    {"_experts_implementation": "sonicmoe"},
]


@pytest.mark.parametrize("wish", WISHES, ids=map(str, WISHES))
def test_a_configs_wish_for_a_kernel_is_not_obeyed(wish, trap, monkeypatch):
    from transformers.integrations import hub_kernels

    monkeypatch.setattr(hub_kernels, "get_kernel", lambda *_, **__: pytest.fail("a kernel was fetched"))
    usual, _ = load_model(trap)
    change(trap / "config.json", **wish)
    model, _ = load_model(locate(str(trap)))
    assert model.config._attn_implementation == usual.config._attn_implementation == "sdpa"
    assert model.config._experts_implementation == usual.config._experts_implementation


def test_transformers_would_have_obeyed(trap):
    """Or the test above would prove nothing."""
    from transformers import AutoModelForCausalLM

    change(trap / "config.json", attn_implementation="evil/kernel")
    with pytest.raises((ImportError, ValueError), match="kernel"):
        AutoModelForCausalLM.from_pretrained(trap, trust_remote_code=False)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {"quantization_config": {"quant_method": "mxfp4"}},
            "config.json: quantization_config: .*mxfp4.*take the model in bf16",
        ),
        ({"text_config": {"quantization_config": {"quant_method": "fp8"}}}, "config.json: quantization_config: "),
        ({"transformers_weights": "adapter_model.bin"}, "config.json: transformers_weights: .*pickled weights"),
    ],
)
def test_a_config_that_asks_for_other_loaders_is_refused(settings, says, trap):
    change(trap / "config.json", **settings)
    for find in (lambda: locate(str(trap)), lambda: load_model(trap)):
        with pytest.raises(RecipeError, match=says):
            find()


def test_an_adapter_that_lies_beside_a_model_is_not_laid_over_it(trap):
    (trap / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "evil/base", "peft_type": "LORA"}))
    with pytest.raises(RecipeError, match="holds an adapter_config.json beside the model"):
        locate(str(trap))


class Bomb:
    """Runs code when it is unpickled."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return (open, (self.mark, "w"))


def test_pickled_weights_are_not_opened(trap, mark):
    (trap / "model.safetensors").unlink()
    torch.save({"model.embed_tokens.weight": Bomb(mark)}, trap / "pytorch_model.bin")
    with pytest.raises(RecipeError, match=r"only pickled weights \(pytorch_model.bin\).*save_pretrained"):
        locate(str(trap))
    with pytest.raises(RecipeError, match="cannot be loaded"):
        load_model(trap)
    assert not mark.exists()


# --- adapters ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path, tiny, tokenizer):
    """A run folder with an adapter for the tiny model, as PEFT writes it."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    with hushed():
        config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
        tuned = get_peft_model(tiny(), config)
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    tuned.save_pretrained(tmp_path / "run" / "adapter", save_embedding_layers=False)
    tokenizer.save_pretrained(tmp_path / "run" / "adapter")
    return tmp_path / "run"


def test_an_adapter_that_fits_says_what_it_says_in_peft(run, model_folder, tiny):
    from peft import PeftModel

    ids = torch.tensor([[5, 6, 7]])
    with hushed():
        theirs = PeftModel.from_pretrained(tiny(), str(run / "adapter")).eval()(ids).logits
    assert torch.equal(load_tuned(run, model_folder)(ids).logits, theirs)
    assert not torch.equal(load_model(model_folder)[0].eval()(ids).logits, theirs)


def wider(run):
    from safetensors.torch import load_file, save_file

    file = run / "adapter" / "adapter_model.safetensors"
    save_file({name: torch.cat([weight, weight], 1) for name, weight in load_file(file).items()}, file)


def fewer(run):
    from safetensors.torch import load_file, save_file

    file = run / "adapter" / "adapter_model.safetensors"
    weights = load_file(file)
    weights.pop(sorted(weights)[0])
    save_file(weights, file)


def more(run):
    from safetensors.torch import load_file, save_file

    file = run / "adapter" / "adapter_model.safetensors"
    save_file(load_file(file) | {"base_model.model.model.norm.weight": torch.ones(32)}, file)


def pickled(run):
    (run / "adapter" / "adapter_model.safetensors").unlink()
    torch.save({"a": Bomb(run.parent / "mark")}, run / "adapter" / "adapter_model.bin")


def cut(run):
    file = run / "adapter" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


def says(**settings):
    return lambda run: change(run / "adapter" / "adapter_config.json", **settings)


def is_all(**settings):
    return lambda run: (run / "adapter" / "adapter_config.json").write_text(json.dumps(settings))


FAULTS = {
    "wider": (wider, "does not fit the model: .* where the model takes "),
    "fewer": (fewer, "does not fit the model: .* is nothing where the model takes "),
    "more": (more, "does not fit the model: .*norm.weight is .* where the model takes nothing"),
    "pickled": (pickled, "adapter_model.safetensors: is not there; pickled weights"),
    "cut": (cut, "the adapter's weights are damaged"),
    "other layers": (says(target_modules=["c_attn"]), "does not fit the model: "),
    "other rank": (says(r=2), "does not fit the model: "),
    "a rank that fills the memory": (says(r=10**9), "adapter_config.json: r: is 1000000000, but the weights have "
        "rank 4"),
    "another kind": (
        says(peft_type="XLORA"),
        "adapter_config.json: peft_type: must be one of .*, LORA, ",
    ),
    "a kind that brings a tokenizer": (
        is_all(peft_type="PROMPT_TUNING", tokenizer_name_or_path="evil/x", tokenizer_kwargs={"trust_remote_code": 1}),
        "adapter_config.json: tokenizer_kwargs: is not obeyed",
    ),
    "weights of another kind": (
        is_all(peft_type="IA3", target_modules=["v_proj"], feedforward_modules=[]), "does not fit the model: "
    ),
    "no config": (lambda run: (run / "adapter" / "adapter_config.json").unlink(), "adapter_config.json: is not there"),
    "a rank that is no number": (says(r="many"), "adapter_config.json: r: must be a whole number"),
    "a module by its name": (
        says(megatron_config={"a": 1}, megatron_core="evil"), "adapter_config.json: megatron_config: is not obeyed"
    ),
    "a pickled cache": (
        says(corda_config={"cache_file": "evil.pt"}, init_lora_weights="corda"), "adapter_config.json: corda_config: "
    ),
    "other weights": (says(trainable_token_indices=[1]), "adapter_config.json: trainable_token_indices: is not obeyed"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_an_adapter_that_does_not_fit_is_refused(fault, run, model_folder, mark):
    damage, sentence = FAULTS[fault]
    damage(run)
    with pytest.raises(CheckpointError, match=sentence) as refusal:
        load_tuned(run, model_folder)
    assert "\n" not in str(refusal.value) and str(run) in str(refusal.value) and not mark.exists()


def test_a_run_folders_model_is_looked_at_as_any_other(run, model_folder):
    change(model_folder / "config.json", quantization_config={"quant_method": "mxfp4"})
    model_folder.rename(run / "model")
    with pytest.raises(RecipeError, match="quantization_config"):
        load_tuned(run, run)


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["modelscope:../../etc", "modelscope:/etc/passwd", "modelscope:a/b/c", "modelscope:"])
def test_a_name_on_a_hub_is_a_name(name):
    with pytest.raises(RecipeError, match="is no name on ModelScope"):
        locate(name)
