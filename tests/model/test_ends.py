"""An answer ends where the chat template ends a turn, also where a base model's settings call another token the end."""

import json
from copy import deepcopy

import pytest
import torch
from tinyrun import Words
from transformers import AutoModelForCausalLM

from tunesmith.data.rendering.turns import end_of_turn
from tunesmith.delivery.ollama import modelfile
from tunesmith.methods.full import Full
from tunesmith.model.engine import Engine
from tunesmith.model.load import AUTO, save_tuned, save_whole


@pytest.fixture
def base(tokenizer):
    """A tokenizer as of a base model: it calls another token the end than the one that its template writes."""
    made = deepcopy(tokenizer)
    made.eos_token = "<|im_start|>"
    return made


def test_the_templates_end_of_a_turn_ends_answers(base, tiny, tmp_path):
    model, (other, turn) = tiny(), base.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    model.generation_config.eos_token_id = other
    engine, ended = Engine(model, base), []
    assert engine.stops() == {other, turn}
    says = iter([40, turn, 41])
    engine.write([[5, 6]], 3, lambda logits: ended.append(1) or torch.tensor([next(says)]))
    assert len(ended) == 2
    stops = [line for line in modelfile(base, "x.gguf").splitlines() if line.startswith("PARAMETER stop")]
    assert stops == ['PARAMETER stop "<|im_start|>"', 'PARAMETER stop "<|im_end|>"']
    for write, folder in (
        (lambda: save_whole(model, base, tmp_path / "whole", "fp32"), tmp_path / "whole"),
        (lambda: save_tuned(model, Full(), base, tmp_path, "base", AUTO), tmp_path / "model"),
    ):
        model.generation_config.eos_token_id = other
        write()
        assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == [other, turn]
        assert AutoModelForCausalLM.from_pretrained(folder).generation_config.eos_token_id == [other, turn]


def test_nothing_changes_where_both_are_the_same_or_the_template_writes_none(base, tokenizer, tiny, tmp_path):
    model = tiny()
    assert end_of_turn(tokenizer) == tokenizer.eos_token and Engine(model, tokenizer).stops() == {1}
    save_whole(model, tokenizer, tmp_path, "fp32")
    assert json.loads((tmp_path / "generation_config.json").read_text())["eos_token_id"] == 1
    for template in (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + m.content + '\n' }}{% endfor %}",
        "{{ raise_exception('no') }}",
        "{{ 1 / 0 }}",
        None,
    ):
        base.chat_template = template
        assert end_of_turn(base) is None
        assert Engine(model, base).stops() == {0, 1}  # 1 of the model's own settings
    assert end_of_turn(Words()) is None
