"""Distillation along the whole line: trained, measured, saved without its teacher; what does not fit is refused."""

import json

import pytest
import torch
from conftest import make_tiny

from tunesmith.config.load import load
from tunesmith.errors import Refusal
from tunesmith.run import Run
from tunesmith.training.train import train


@pytest.fixture
def teacher_folder(tmp_path, tokenizer):
    """A wider model with the same words, which is sure of something."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(3)
    sizes = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    folder = tmp_path / "teacher"
    LlamaForCausalLM(LlamaConfig(vocab_size=384, initializer_range=0.2, **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def run_of(model, rows, output, *words) -> Run:
    data = [f"data.path={rows}", "data.format=template", "data.format.prompt={text}", "data.format.answer={label}"]
    some = ["train.learning_rate=1e-2", "train.num_train_epochs=2", "train.logging_steps=1", "eval.task=loss"]
    words = [f"model.path={model}", "method=full", "objective=distill", *data, *some, f"output={output}", *words]
    return load(Run, None, words).value


def test_a_student_is_trained_measured_and_saved_without_its_teacher(model_folder, teacher_folder, reviews, tmp_path):
    from tunesmith.tuned import load_run

    run = run_of(model_folder, reviews, tmp_path / "run", f"objective.teacher={teacher_folder}", "objective.beta=0")
    found = train(run, quiet=True)
    assert found.after["loss"] < 0.9 * found.before["loss"]
    saved = sorted(file.name for file in (tmp_path / "run" / "model").glob("*.safetensors"))
    assert saved == ["model.safetensors"]
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert "objective.teacher: model.safetensors" in manifest["base"]
    assert load_run(tmp_path / "run").evaluate().scores.loss == pytest.approx(found.after["loss"], rel=1e-3)


def test_what_does_not_fit_is_refused_before_training(model_folder, teacher_folder, reviews, tmp_path, tokenizer):
    def refused(*words) -> str:
        with pytest.raises(Refusal) as told:
            train(run_of(model_folder, reviews, tmp_path / "run", *words), quiet=True)
        return str(told.value)

    assert "objective.teacher: distill learns from another model: name its folder" in refused()
    assert refused(f"objective.teacher={tmp_path / 'nowhere'}").startswith("objective.teacher: model '")
    other_words = tmp_path / "other"
    model = make_tiny()
    model.resize_token_embeddings(400)
    model.save_pretrained(other_words)
    tokenizer.save_pretrained(other_words)
    sentence = refused(f"objective.teacher={other_words}")
    assert "knows 400 tokens" in sentence and "knows 384" in sentence

    changed = json.loads((teacher_folder / "tokenizer.json").read_text())
    words = changed["model"]["vocab"]
    first, *_, second = sorted(words, key=words.get)  # the first of all is token 0
    words[first], words[second] = words[second], words[first]
    (teacher_folder / "tokenizer.json").write_text(json.dumps(changed))
    sentence = refused(f"objective.teacher={teacher_folder}")
    assert "token 0 is " in sentence and "must have the model's own tokenizer" in sentence
    assert not (tmp_path / "run" / "run.json").exists()
