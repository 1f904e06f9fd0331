"""What a model knew before a training and knows after it."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from conftest import make_tiny
from training.test_resume import changed, run_of

from tunesmith.data.rendering.render import Renderer
from tunesmith.errors import RecipeError
from tunesmith.evaluate.retention import Known, answered, ask, paragraphs, questions, retained, rightly, sentence
from tunesmith.methods.full import Full
from tunesmith.methods.lora import LoRA
from tunesmith.objectives.classify import Classify
from tunesmith.objectives.sft import SFT
from tunesmith.run import Data, Eval
from tunesmith.runs import RunFolder
from tunesmith.training.train import resume, train


def test_the_questions_are_sound():
    asked = questions()
    assert Counter(one.skill for one in asked) == {
        "facts": 50, "arithmetic": 40, "language": 40, "instructions": 35, "refusal": 35,
    }  # fmt: skip
    assert len({(one.prompt, one.right) for one in asked}) == 200
    assert all(len(set(one.answers)) == len(one.answers) >= 2 for one in asked)
    for one in asked:
        if one.skill == "arithmetic":
            _, _, first, sign, *by, second = one.prompt.rstrip("?").split()
            first, second = int(first), int(second)
            right = {"plus": first + second, "minus": first - second, "times": first * second}.get(sign)
            assert str(first // second if right is None else right) == one.right
    assert len(paragraphs()) == 24


def test_likelihoods_are_those_of_a_plain_forward(tokenizer):
    model, renderer = make_tiny().eval(), Renderer(tokenizer, Data(path="none"))
    known = ask(model, renderer)
    ids = torch.tensor([renderer.tokenizer(paragraphs()[3])["input_ids"] + [tokenizer.eos_token_id]])
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(model(input_ids=ids).logits[0, :-1], ids[0, 1:], reduction="sum")
    assert known.lost[3] == pytest.approx(float(loss), rel=1e-5) and known.tokens[3] == ids.shape[1] - 1
    first = questions()[0]
    prompt = renderer.tokenizer(
        tokenizer.apply_chat_template(
            [{"role": "user", "content": first.prompt}], tokenize=False, add_generation_prompt=True
        )
    )["input_ids"]
    scores = []
    for answer in first.answers:
        option = answered(renderer, first.prompt, answer)
        assert option == renderer.tokenizer(answer + "<|im_end|>")["input_ids"]
        row = torch.tensor([prompt + option])
        with torch.no_grad():
            logp = model(input_ids=row).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        scores.append(float(logp.gather(-1, row[0, len(prompt) :, None]).mean()))
    assert known.hits["facts"][0] == (max(scores) == scores[0])
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    lost = ask(model, renderer)
    assert not any(map(any, lost.hits.values())) and lost.perplexity > 1e300
    kept = retained(known, lost)
    assert all(share == 0 for share, _ in (kept["all"], kept["facts"])) and 0 < kept["text"][0] < 1e-300
    assert "0% of general skills" in sentence(kept) and "up to " in sentence(kept)


def test_what_is_left_is_a_share_with_an_interval_over_the_same_questions():
    before = Known({"facts": [True] * 40 + [False] * 10, "language": [True] * 10}, [10.0] * 20, [5] * 20)
    same = retained(before, before)
    assert same["facts"] == (1.0, (1.0, 1.0)) and same["text"] == (1.0, (1.0, 1.0))
    after = Known({"facts": [True] * 20 + [False] * 30, "language": [True] * 10}, [11.0] * 20, [5] * 20)
    kept = retained(before, after)
    assert kept["facts"][0] == 0.5 and 0.3 < kept["facts"][1][0] < 0.5 < kept["facts"][1][1] < 0.7
    assert kept["all"][0] == pytest.approx(30 / 50) and kept["text"][0] == pytest.approx(np.exp(-0.2))
    assert sentence(kept).startswith("retained: 60% of general skills (")
    assert "up by 22.1%" in sentence(kept)
    gone = retained(before, Known(after.hits, [5e3] * 20, [5] * 20))  # a thousand nats a token
    assert 0 < gone["text"][0] < 1e-300 and "up to 1.01e+304 times" in sentence(gone)
    assert retained(Known(after.hits, [5e3] * 20, [5] * 20), before)["text"][0] > 1e300
    assert Known({}, [5e3, float("inf")], [5, 5]).perplexity > 1e300
    nothing = Known({"facts": [False] * 3}, [1.0], [1])
    assert retained(nothing, nothing)["facts"][0] == 1.0


def test_an_option_that_is_as_likely_as_another_or_no_number_is_not_chosen():
    nan, inf = float("nan"), float("inf")
    rows = [[-1, -2], [-1, -1], [-2, -1], [nan, -1], [-1, nan], [nan, nan], [-inf, -inf], [-1, -inf]]
    assert rightly(np.array(rows)) == [True, *[False] * 6, True]


def test_a_run_that_learns_its_rows_by_heart_forgets_and_says_so(model_folder, reviews, tmp_path, capsys):
    from dataclasses import replace

    run = run_of(model_folder, reviews, tmp_path / "r", Full(), SFT(), max_steps=20, learning_rate=3e-2)
    train(replace(run, eval=Eval(retention=True)))
    facts = RunFolder(tmp_path / "r").facts["retention"]
    assert facts.keys() == {"before", "after", "kept"}
    assert facts["kept"]["text"][0] < 0.9 and facts["after"]["perplexity"] > facts["before"]["perplexity"]
    again = retained(Known.from_json(facts["before"]), Known.from_json(facts["after"]))
    assert json.loads(json.dumps({name: [share, *spread] for name, (share, spread) in again.items()})) == facts["kept"]
    assert "retained: " in capsys.readouterr().err
    changed(tmp_path / "r", "max_steps", 24)
    resume(tmp_path / "r", quiet=True)
    later = RunFolder(tmp_path / "r").facts["retention"]
    assert later["before"] == facts["before"] and later["after"]["perplexity"] != facts["after"]["perplexity"]
    assert later["kept"]["text"] != facts["kept"]["text"]
    sorts = run_of(model_folder, reviews, tmp_path / "c", LoRA(r=4), Classify())
    with pytest.raises(RecipeError, match=r"eval\.retention: asks models that write, and classify makes one"):
        train(replace(sorts, eval=Eval(retention=True)), quiet=True)
