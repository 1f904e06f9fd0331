"""What is handed on is what was trained: loaded by others' code, in another process, it says the same."""

import json
from math import isnan

import pytest
import torch
from conftest import make_tiny

from tunesmith.data.example import Message
from tunesmith.data.rendering.dialogue import Writer
from tunesmith.delivery import hub
from tunesmith.delivery._gguf import refuse_unknown, write_gguf
from tunesmith.delivery._go_template import around
from tunesmith.delivery.adapter import Adapter
from tunesmith.delivery.deliver import deliver
from tunesmith.delivery.gguf import APART, Gguf
from tunesmith.delivery.merged import Merged
from tunesmith.delivery.ollama import Ollama
from tunesmith.delivery.proof import ASKED, Apart, drift, heard, says, texts
from tunesmith.delivery.source import source_of
from tunesmith.errors import CheckpointError, RecipeError
from tunesmith.methods.full import Full
from tunesmith.methods.lora import LoRA
from tunesmith.methods.prompt_tuning import PromptTuning
from tunesmith.model.solid import solid
from tunesmith.objectives.classify import Classify
from tunesmith.precision import plain
from tunesmith.precision.bitsandbytes import NF4
from tunesmith.precision.plain import BF16, Auto


def deliver_to(folder, way, tmp_path, most=None):
    said = []
    apart = deliver(folder, way, tmp_path / "out", most, said.append)
    return apart, said


def test_a_merged_model_is_the_trained_one_to_transformers_and_in_a_new_process(source, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    ours = source.tuned
    apart, said = deliver_to(str(ours.folder.path), Merged(), tmp_path)
    assert apart.prompts == 32 == len(ASKED)
    assert apart.kl < 1e-6 and apart.agreement > 0.999 and "KL" in said[0]
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    ids = AutoTokenizer.from_pretrained(tmp_path / "out")("the film is warm")["input_ids"]
    assert torch.allclose(says(theirs, ids, False), says(ours.model, ids, False), atol=1e-5)
    with ours.side(base=True) as before:
        assert not torch.allclose(says(theirs, ids, False), says(before, ids, False), atol=1e-3)
    proof, card = json.loads((tmp_path / "out/proof.json").read_text()), (tmp_path / "out/README.md").read_text()
    assert proof["form"] == "merged" and proof["kl"] == apart.kl
    assert "library_name: transformers" in card and "objective sft, method lora" in card and apart.sentence() in card


@pytest.mark.parametrize("numbers", APART)
def test_gguf_says_the_same_but_for_its_rounding(source, tmp_path, in_this_process, numbers):
    Gguf(quantization=numbers).check(source)
    folder = tmp_path / "out"
    folder.mkdir()
    Gguf(quantization=numbers).write(source, folder)
    apart = in_this_process(source, folder)
    assert apart.kl <= APART[numbers]
    assert apart.kl < 1e-6 or numbers != "f32"
    assert apart.logits > 0 or numbers == "f32"


@pytest.mark.parametrize("kind", ["Qwen2", "Qwen3"])
def test_gguf_of_other_families_says_what_it_does_not_quantise(kind, tokenizer, tmp_path, caplog):
    import transformers

    torch.manual_seed(0)
    # heads of 128: of a Qwen3 file transformers reads no other size
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=384, hidden_size=256 if kind == "Qwen2" else 64, intermediate_size=80, num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1, head_dim=128, tie_word_embeddings=True, max_position_embeddings=512,
    )  # fmt: skip
    config.architectures = [f"{kind}ForCausalLM"]
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    for weight in model.parameters():  # biases and norms that differ from what they are usually at first
        weight.data += 0.05 * torch.randn_like(weight)
    write_gguf(model, tokenizer, tmp_path / "m.gguf", "f32", "m")
    job = {"folder": str(tmp_path), "texts": ["the film is warm 12"], "labels": ()}
    found = dict(heard(job))
    assert torch.allclose(found["said0"], says(model, found["ids0"].tolist(), False), atol=1e-4)
    assert "keep 16 bits" not in caplog.text
    write_gguf(model, tokenizer, tmp_path / "few.gguf", "q8_0", "m")
    assert "2 of 15 matrices keep 16 bits: q8_0 takes 32 numbers of a row" in caplog.text
    narrow = {"hidden_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 12}
    config = getattr(transformers, f"{kind}Config")(intermediate_size=80, **narrow)
    config.architectures = [f"{kind}ForCausalLM"]
    assert refuse_unknown(config, tokenizer, "f16") == kind.lower()
    with pytest.raises(RecipeError, match="quantization: q8_0 takes 32 numbers .* have 48, 80, so that none of it"):
        refuse_unknown(config, tokenizer, "q8_0")


@pytest.mark.usefixtures("in_this_process")
def test_what_is_too_far_from_the_trained_model_is_not_kept(source, tmp_path):
    folder = str(source.tuned.folder.path)
    with pytest.raises(CheckpointError, match=r"nats a token from what was trained, more than 1e-12; nothing is kept"):
        deliver_to(folder, Gguf(quantization="q4_0"), tmp_path, most=1e-12)
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))


def test_quantised_layers_as_ordinary_ones(model_folder, tmp_path):
    from tunesmith.methods.base import plain
    from tunesmith.model.load import load_model

    held = load_model(model_folder, NF4())[0].eval()
    before = says(held, [1, 5, 9, 30], False)
    whole = solid(held)
    assert all(plain(layer) for layer in whole.modules() if isinstance(layer, torch.nn.Linear))
    assert torch.allclose(says(whole, [1, 5, 9, 30], False), before, atol=1e-5)
    whole.save_pretrained(tmp_path / "again")
    again = load_model(tmp_path / "again")[0]
    assert torch.equal(says(again, [1, 5, 9, 30], False), says(whole, [1, 5, 9, 30], False))
    untouched = make_tiny()
    assert solid(untouched) is untouched


@pytest.mark.usefixtures("in_this_process")
def test_a_run_over_quantised_weights_is_merged_into_those_it_was_trained_on(run, tmp_path, monkeypatch):
    from tunesmith import run as recipes

    monkeypatch.setattr("training.test_resume.Model", lambda path: recipes.Model(path=path, precision=NF4()))
    folder = run(LoRA(r=4))
    assert source_of(folder).quantised
    found, proofs = {}, {}
    for into in ("trained_on", "original"):
        said = []
        found[into] = deliver(folder, Merged(into=into), tmp_path / into, 1.0, said.append)
        assert f"this is into={into}; merged into the other weights" in said[1] and "KL" in said[1]
        proofs[into] = json.loads((tmp_path / into / "proof.json").read_text())
    assert found["trained_on"].kl < 1e-6 < found["original"].kl
    for into, other in (("trained_on", "original"), ("original", "trained_on")):  # each shows what the other is
        assert proofs[into][f"into_{other}"]["kl"] == pytest.approx(found[other].kl, rel=0.01, abs=1e-6)
    with pytest.raises(CheckpointError, match=r"nothing is kept. Merge into the weights that it was trained on"):
        deliver(folder, Merged(into="original"), tmp_path / "third", None, lambda _: None)


@pytest.mark.parametrize("held", [Auto(), BF16(), NF4(compute_dtype="bf16")], ids=["auto", "bf16", "nf4"])
def test_a_run_that_computes_in_16_bits_is_delivered_in_32(held, run, tmp_path, monkeypatch, in_this_process):
    """As every run on a GPU does: what it says is rounded, and the weights that it was trained on are not others."""
    from tunesmith import run as recipes

    usual = plain.number_format
    monkeypatch.setattr(plain, "number_format", lambda word, key: usual("bf16" if word == "auto" else word, key))
    monkeypatch.setattr("training.test_resume.Model", lambda path: recipes.Model(path=path, precision=held))
    folder = run(LoRA(r=4))
    said = source_of(folder)
    assert said.tuned.model.dtype == torch.bfloat16
    rounded = says(said.tuned.model, [1, 5, 9, 30], False)
    for way in (Merged(), Adapter()):
        out = tmp_path / way.name
        assert deliver(folder, way, out, None, lambda _: None).logits < 1e-3
    assert not torch.equal(says(source_of(folder).model, [1, 5, 9, 30], False), rounded)


def test_an_adapter_and_a_whole_model(run, tmp_path, in_this_process):
    folder = run(Full())
    with pytest.raises(RecipeError, match="holds a whole model and no adapter"):
        deliver_to(folder, Adapter(), tmp_path)
    source = source_of(folder)
    Merged().write(source, tmp_path / "out")
    assert in_this_process(source, tmp_path / "out").logits < 1e-5


def test_one_that_tells_classes_apart(run, tmp_path, in_this_process):
    source = source_of(run(LoRA(r=4), Classify()))
    Merged().write(source, tmp_path / "out")
    apart = in_this_process(source, tmp_path / "out")
    assert apart.tokens == 32 and apart.kl < 1e-6
    with pytest.raises(RecipeError, match="tells classes apart; deliver it with --to merged"):
        Gguf().check(source)


def test_what_cannot_be_delivered_is_refused_before_weights_are_read(run, tmp_path):
    folder = run(PromptTuning(num_virtual_tokens=4))
    for way in (Merged(), Gguf(), hub.Hub(repo="me/x", whole=True)):
        with pytest.raises(RecipeError, match="of the kind PROMPT_TUNING, which no weights can take in"):
            deliver_to(folder, way, tmp_path)
    with pytest.raises(RecipeError, match=r"repo: must be owner/name"):
        deliver_to(folder, hub.Hub(repo="../x"), tmp_path)
    (tmp_path / "out").mkdir()
    with pytest.raises(RecipeError, match="is there already"):
        deliver_to(folder, Adapter(), tmp_path)


def test_ollama_is_given_the_template_that_the_model_has(tokenizer, source, tmp_path):
    found = around(Writer(tokenizer))
    assert found.begin + found.unasked == "<|im_start|>system\nYou are helpful<|im_end|>\n"
    assert found.turns["user"] == ("<|im_start|>user\n", "<|im_end|>\n")
    assert found.answer == "<|im_start|>assistant\n"
    go = found.in_go()
    assert go.startswith(
        '{{ "<|im_start|>system\\n" }}{{ if ne (index .Messages 0).Role "system" }}{{ "You are helpful'
    )
    assert '{{ else if eq .Role "user" }}{{ "<|im_start|>user\\n" }}{{ .Content }}{{ "<|im_end|>\\n" }}' in go
    (tmp_path / "out").mkdir()
    Ollama(quantization="f16").write(source, tmp_path / "out")
    said = (tmp_path / "out/Modelfile").read_text()
    assert "FROM ./r-f16.gguf" in said and go in said and 'PARAMETER stop "<|im_end|>"' in said
    fields = pytest.importorskip("gguf").GGUFReader(tmp_path / "out/r-f16.gguf").fields
    assert fields["tokenizer.ggml.eot_token_id"].contents() == tokenizer.eos_token_id


def test_a_template_without_a_system_turn_and_one_that_does_more(tokenizer):
    from copy import deepcopy

    plain = deepcopy(tokenizer)
    plain.chat_template = (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('none') }}{% endif %}"
        "<{{ m.role }}>{{ m.content }}</{{ m.role }}>\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    found = around(Writer(plain))
    assert found.begin == "<|im_start|>" and "system" not in found.turns
    assert found.written([Message("user", "a b")]) == "<|im_start|><user>a b</user>\n<assistant>"
    plain.chat_template = plain.chat_template.replace("{{ m.content }}", "{{ loop.index }}{{ m.content }}")
    with pytest.raises(RecipeError, match="does more than put words around turns"):
        around(Writer(plain))


def test_no_number_is_no_proof(source, tmp_path, monkeypatch):
    def overflown(number, ids):
        right = says(source.tuned.model, ids, False)
        return right if number else right.fill_(float("nan"))

    apart = drift(source, texts(source)[:3], overflown)
    assert isnan(apart.kl) and isnan(apart.logits) and apart.agreement < 1
    monkeypatch.setattr("tunesmith.delivery.deliver.prove", lambda *_: Apart(32, 10, float("nan"), 0.0, float("nan")))
    with pytest.raises(CheckpointError, match="nothing is kept"):
        deliver_to(str(source.tuned.folder.path), Adapter(), tmp_path)
