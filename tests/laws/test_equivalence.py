"""Law: every way of computing a step comes to the same, for every method and objective; and what does not is found."""

import json

import pytest
import torch
from conftest import make_tiny
from tinyrun import COVER, loop_of, sequences_for

from tunesmith.methods.base import method
from tunesmith.methods.freeze import Freeze
from tunesmith.methods.lora import LoRA
from tunesmith.objectives.base import objective
from tunesmith.objectives.sft import SFT
from tunesmith.training.doctor import examine


@pytest.mark.parametrize(("name", "aim"), COVER)
def test_equivalence_of_every_way(name, aim):
    judge = objective[aim]()
    loop = loop_of(make_tiny, method[name](), judge, sequences_for(judge)[:6], learning_rate=1e-2)
    before = {name: weight.detach().clone() for name, weight in loop.weights.items()}
    findings = list(examine(loop))
    assert [one.what for one in findings if not one.holds] == []
    assert len(findings) >= 8
    assert all(torch.equal(weight, before[name]) for name, weight in loop.weights.items())


@pytest.mark.parametrize(("kind", "what"), [(Freeze(num_layers=1), "kept states"), (LoRA(), "PEFT's own layers")])
def test_equivalence_is_tried_of_what_a_method_has(kind, what):
    loop = loop_of(make_tiny, kind, SFT(), sequences_for(SFT())[:3])
    assert any(what in one.what for one in examine(loop))


def test_equivalence_with_dropout_holds_too():
    loop = loop_of(make_tiny, LoRA(lora_dropout=0.3), SFT(), sequences_for(SFT())[:4], learning_rate=1e-2)
    assert all(one.holds for one in examine(loop))


def test_a_model_that_mixes_rows_up_is_found_out():
    loop = loop_of(make_tiny, LoRA(), SFT(), sequences_for(SFT())[:4])
    loop.policy.apart = False  # as if attention went over all of a packed row
    loop.policy.run = lambda batch, model=None: (model or loop.policy.model)(
        input_ids=batch.ids, attention_mask=batch.attend, use_cache=False
    )
    wrong = [one.what for one in examine(loop) if not one.holds]
    assert any("as this run lays them out" in what for what in wrong)
    assert not any("padded" in what for what in wrong)


def test_equivalence_from_the_command_line(model_folder, reviews, tmp_path, capsys):
    from tunesmith.cli import app

    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        f"model: {{path: {model_folder}}}\ndata: {{path: {reviews}, format: {{name: template,"
        ' prompt: "{text}", answer: "{label}"}}\n'
    )
    app(["doctor", str(recipe), "--json", "--rows", "3"], standalone_mode=False)
    findings = json.loads(capsys.readouterr().out)
    assert findings and all(one["holds"] for one in findings)
