"""A method, a precision or an adapter that does not fit: one sentence and its exit code, before training."""

import json
import re
import shutil

import pytest
import torch
from conftest import make_tiny
from transformers import LlamaForCausalLM

from tunesmith.cli import main
from tunesmith.methods.lora import LoRA
from tunesmith.model.load import attach


@pytest.fixture
def train(tmp_path, model_folder, reviews, capsys):
    """Run `tunesmith train` with these words; the exit code, and what was said last."""

    def run(*words, to="run"):
        usual = [f"model.path={model_folder}", f"data.path={reviews}", f"output={tmp_path / to}"]
        usual += ["data.format.name=template", "data.format.prompt={text}", "eval.enabled=false", "train.max_steps=1"]
        with pytest.raises(SystemExit) as left:
            main(["train", *usual, *map(str, words)])
        said = capsys.readouterr().err
        assert "Traceback" not in said
        return left.value.code or 0, said.strip().split("\n")[-1]

    return run


def adapter(folder, **sizes):
    """A LoRA adapter of a model of these sizes."""
    tuned = attach(make_tiny(**sizes), LoRA(r=4))
    tuned.save_pretrained(folder)
    return folder


FAULTS = {
    "no such module": (
        ["method.target_modules=[q_prj]"],
        2,
        "method.target_modules: no linear layer of the model is named q_prj; it has down_proj, gate_proj, k_proj",
    ),
    "too high a rank": (["method.r=99"], 2, "method.r: 99 is more than .* has, which is 32 x 32; take at most"),
    "another architecture": (
        ["method=bitfit"],
        2,
        "method: bitfit trains biases, and LlamaForCausalLM has none here; take layernorm or ia3",
    ),
    "quantised and full": (
        ["method=full", "model.precision=nf4"],
        2,
        "model.precision=nf4 holds weights in few bits, which cannot learn, and full .* method=lora",
    ),
    "no adapter": (["model.adapters=[/nowhere]"], 2, "model.adapters: /nowhere holds no adapter; name the folder"),
}


@pytest.mark.parametrize(("words", "code", "sentence"), FAULTS.values(), ids=FAULTS)
def test_what_does_not_fit_is_refused(words, code, sentence, train, tmp_path):
    if "nf4" in str(words):
        pytest.importorskip("bitsandbytes")
    left, said = train(*words)
    assert left == code and re.search(sentence, said), said
    assert not (tmp_path / "run" / "checkpoints").exists() and not (tmp_path / "run" / "adapter").exists()


def test_a_missing_extra_is_named_with_its_command(train, monkeypatch):
    monkeypatch.setattr("tunesmith.precision.base.find_spec", lambda package: None)
    monkeypatch.setattr("tunesmith.optimizers.base.find_spec", lambda package: None)
    monkeypatch.setattr("tunesmith.trackers.base.find_spec", lambda package: None)
    for word, command in {
        "model.precision=hqq": "pip install 'tunesmith\\[hqq\\]'",
        "train.optim=adamw_bnb_8bit": "pip install 'tunesmith\\[bitsandbytes\\]'",
        "train.report_to=[wandb]": "pip install 'tunesmith\\[wandb\\]'",
    }.items():
        left, said = train(word)
        assert left == 6 and re.search(command, said), (word, left, said)


def truncated(folder):
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def no_weights(folder):
    (folder / "adapter_model.safetensors").write_bytes(b"not weights")


def half_a_config(folder):
    file = folder / "adapter_config.json"
    file.write_text(file.read_text()[:-20])


def a_list(folder):
    (folder / "adapter_config.json").write_text("[]")


def text_for_a_rank(folder):
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"r": "four"}))


SPOILT = [truncated, no_weights, half_a_config, a_list, text_for_a_rank]


@pytest.mark.parametrize("spoil", SPOILT)
def test_a_damaged_adapter_is_refused(spoil, train, tmp_path):
    folder = adapter(tmp_path / "saved")
    spoil(folder)
    setting = f"method.adapter={folder}" if spoil is truncated else f"model.adapters=[{folder}]"
    left, said = train("method.r=4", setting)
    assert left == 7 and str(folder) in said
    assert re.search("copy (it|them) anew|copy or download it again|must be one of", said), said


@pytest.mark.parametrize("setting", ["model.adapters", "method.adapter"])
def test_an_adapter_of_a_model_of_other_sizes_is_refused(setting, train, tmp_path):
    folder = adapter(tmp_path / "saved", head_dim=16)
    value = f"[{folder}]" if setting == "model.adapters" else folder
    left, said = train("method.r=4", f"{setting}={value}")
    assert left == 7 and "does not fit the model" in said and "name the model that the adapter was trained on" in said


def test_an_adapter_of_other_weights_of_the_same_sizes_is_refused(train, model_folder, tmp_path):
    assert train()[0] == 0
    torch.manual_seed(1)
    other = shutil.copytree(model_folder, tmp_path / "other")
    LlamaForCausalLM(make_tiny().config).save_pretrained(other)
    for setting in (f"model.adapters=[{tmp_path / 'run'}]", f"method.adapter={tmp_path / 'run'}"):
        left, said = train(f"model.path={other}", setting, to="second")
        assert left == 7 and "was trained on other weights than those in" in said and not (tmp_path / "second").exists()
    out = shutil.copytree(tmp_path / "run" / "adapter", tmp_path / "out")
    assert train(f"model.path={other}", f"model.adapters=[{out}]", to="third")[0] == 0
