"""Reward models as judges: held against transformers' own scores, calibrated, trusted or refused."""

import json

import pytest
import torch

from tunesmith.cli import main
from tunesmith.errors import RecipeError
from tunesmith.rewards._settings import Judge
from tunesmith.rollout.judge import Pair, open_judge
from tunesmith.rollout.tools import Models

ASKED = ({"role": "user", "content": "is this review positive or negative?"},)
SAID = ["the film is warm and funny", "a dull, lifeless mess", "one two three four", "the quick brown fox", "yes"]


@pytest.fixture
def scorer(tmp_path, tiny, tokenizer):
    def make(labels=1):
        folder = tmp_path / f"scorer{labels}"
        model = tiny(labels=labels)
        model.config.pad_token_id = 1
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder, model.eval()

    return make


def run(*words):
    """A command's exit code."""
    with pytest.raises(SystemExit) as left:
        main(["judge", *words])
    return left.value.code or 0


@torch.no_grad()
def score(model, tokenizer, text):
    """What transformers itself makes of a dialogue."""
    turns = [*ASKED, {"role": "assistant", "content": text}]
    ids = tokenizer.apply_chat_template(turns, return_dict=False)
    return float(model(torch.tensor([ids])).logits[0, 0])


def test_the_answer_with_the_higher_score_is_preferred_in_either_order(scorer, tokenizer):
    folder, model = scorer()
    judge = open_judge(Judge(model=str(folder)))
    worth = {text: score(model, tokenizer, text) for text in SAID}
    found = [(one, other) for one in SAID for other in SAID]
    verdicts = judge.compare([Pair(ASKED, *pair) for pair in found])
    for (one, other), verdict in zip(found, verdicts, strict=True):
        assert verdict.there
        assert verdict.better == (None if one == other else int(worth[one] < worth[other]))
    assert judge.account.asked == len(SAID)  # each answer once


def test_it_is_calibrated_and_labels_what_it_is_trusted_with(scorer, tokenizer, tmp_path, capsys):
    folder, model = scorer()
    answers = sorted((f"{word} {n}" for word in SAID for n in range(16)), key=lambda one: score(model, tokenizer, one))
    pairs = list(zip(answers[40:], answers[:40], strict=True))  # the better ones, by its own scores
    rows = [{"prompt": ASKED[0]["content"], "chosen": one, "rejected": other} for one, other in pairs]
    people, turned, to = tmp_path / "people.jsonl", tmp_path / "turned.jsonl", tmp_path / "judge.json"
    people.write_text("".join(json.dumps(row) + "\n" for row in rows))
    turned.write_text(
        "".join(json.dumps(row | {"chosen": row["rejected"], "rejected": row["chosen"]}) + "\n" for row in rows)
    )
    told = [f"judge.model={folder}"]
    assert run("calibrate", str(people), "--to", str(to), "--json", *told) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["figures"]["kappa"]["value"] == 1 and made["figures"]["position_bias"]["value"] == 0
    assert made["distrust"] is None
    labels = tmp_path / "labels.jsonl"
    assert run("label", str(turned), "--to", str(labels), f"calibration={to}", *told) == 0
    assert [json.loads(one)["chosen"] for one in labels.read_text().splitlines()] == [one for one, _ in pairs]
    wrong = tmp_path / "wrong.json"
    assert run("calibrate", str(turned), "--to", str(wrong), *told) == 0
    assert run("label", str(turned), "--to", str(tmp_path / "no.jsonl"), f"calibration={wrong}", *told) == 2
    assert "as low as a kappa of -1.00" in capsys.readouterr().err
    model.score.weight.data.mul_(2)
    model.save_pretrained(folder)  # another model under the same name
    assert run("label", str(turned), "--to", str(tmp_path / "no.jsonl"), f"calibration={to}", *told) == 2
    assert "the calibration is of another judge" in capsys.readouterr().err


def test_a_score_that_is_no_number_is_no_verdict(scorer):
    folder, model = scorer()
    model.score.weight.data.fill_(float("nan"))
    model.save_pretrained(folder)
    [verdict] = open_judge(Judge(model=str(folder))).compare([Pair(ASKED, *SAID[:2])])
    assert not verdict.there and verdict.why == "the reward model's score is not a number"


def test_what_it_cannot_do_is_refused(scorer):
    folder, _ = scorer()
    with pytest.raises(RecipeError, match=r"judge\.rubric: .* is a reward model, which reads none; leave it out"):
        open_judge(Judge(model=str(folder), rubric="The shorter the better."))
    judge = open_judge(Judge(model=str(folder)))
    for ask in (lambda: judge.rate([(ASKED, "yes")], 1, 5), lambda: judge.revise([(ASKED, "yes")])):
        with pytest.raises(RecipeError, match=r"judge\.model: .* neither rates them by a rubric .* nor rewrites them"):
            ask()
    with pytest.raises(RecipeError, match="neither rates them by a rubric"):  # as a reward, before anything is written
        Models().rubric(Judge(model=str(folder)), 1, 5)
    with pytest.raises(RecipeError, match="has 2 outputs; expected a reward model, which has one"):
        open_judge(Judge(model=str(scorer(2)[0])))
