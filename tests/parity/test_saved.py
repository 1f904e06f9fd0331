"""What is saved loads in plain PEFT and transformers, and says the same there."""

import pytest
import torch
from training.test_resume import run_of

from tunesmith import load_run, train
from tunesmith.methods.freeze import Freeze
from tunesmith.methods.full import Full
from tunesmith.methods.lora import LoRA
from tunesmith.model.load import hushed
from tunesmith.objectives.classify import Classify
from tunesmith.objectives.pretrain import Pretrain
from tunesmith.objectives.sft import SFT

METHODS = {
    "lora": LoRA(r=4), "eva": LoRA(r=4, init_lora_weights="eva"), "full": Full(), "freeze": Freeze(num_layers=1),
}  # fmt: skip
IDS = torch.tensor([[5, 6, 7, 8, 9, 40, 41]])


@pytest.mark.parametrize("objective", [SFT(), Pretrain(), Classify()], ids=["sft", "pretrain", "classify"])
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_what_is_saved_says_the_same_without_us(model_folder, reviews, tmp_path, method, objective):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    train(run_of(model_folder, reviews, tmp_path / "run", method, objective, max_steps=2), quiet=True)
    family = AutoModelForSequenceClassification if isinstance(objective, Classify) else AutoModelForCausalLM
    adapter = tmp_path / "run" / "adapter"
    if isinstance(method, LoRA):
        heads = {"num_labels": 2} if isinstance(objective, Classify) else {}
        with hushed():
            plain = PeftModel.from_pretrained(family.from_pretrained(model_folder, **heads), str(adapter))
    else:
        plain = family.from_pretrained(tmp_path / "run" / "model")
    tuned = load_run(tmp_path / "run").model
    untouched = family.from_pretrained(model_folder)
    with torch.no_grad():
        ours, theirs, before = (model.eval()(IDS).logits for model in (tuned, plain, untouched))
    assert torch.equal(ours, theirs)
    assert not torch.allclose(ours, before, atol=1e-4)
    folder = adapter if isinstance(method, LoRA) else tmp_path / "run" / "model"
    assert AutoTokenizer.from_pretrained(folder).chat_template


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_lora_trains_the_head_that_a_classifier_has_already(tokenizer, tiny, reviews, tmp_path, family):
    """Such as one that was tuned before; an encoder cannot write, so PEFT must not take it for a model that does."""
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    made = tiny(labels=2) if family == "llama" else BertForSequenceClassification(BertConfig(vocab_size=384, **size))
    made.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    train(run_of(tmp_path / "base", reviews, tmp_path / "run", LoRA(r=4), Classify(), max_steps=2), quiet=True)
    with hushed():
        base = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base")
        before = {name: weight.clone() for name, weight in base.named_parameters()}
        plain = PeftModel.from_pretrained(base, str(tmp_path / "run" / "adapter"))
    tuned = load_run(tmp_path / "run").model
    with torch.no_grad():
        assert torch.equal(tuned.eval()(IDS).logits, plain.eval()(IDS).logits)
    head = "score" if family == "llama" else "classifier"
    trained = dict(tuned.named_parameters())[f"base_model.model.{head}.modules_to_save.default.weight"]
    assert not trained.equal(before[f"{head}.weight"])
