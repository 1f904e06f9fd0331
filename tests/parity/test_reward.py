"""Reward models: the loss is what papers and TRL 1.16 say, and what is saved scores the same in plain transformers."""

import json
import subprocess
import sys
from itertools import product
from types import SimpleNamespace

import pytest
import torch

from tunesmith import load_run, train
from tunesmith.cli import main
from tunesmith.data.rendering.tokens import TooLong
from tunesmith.errors import DataError, RecipeError
from tunesmith.methods.full import Full
from tunesmith.methods.lora import LoRA
from tunesmith.model.load import load_tokenizer
from tunesmith.objectives.reward import Reward
from tunesmith.run import Data, Eval, Model, Run, Train

MARGIN = torch.tensor([0.5, 0.0, 2.0, 1.25], dtype=torch.float64)
SHARE = torch.tensor([0.9, 0.5, 1.0, 0.7], dtype=torch.float64)


def bradley_terry(better, worse, share=1.0, margin=0.0):
    """The cross-entropy of the chance that the better one wins, written as chances."""
    chance = (better - margin).exp() / ((better - margin).exp() + worse.exp())
    return -(share * chance.log() + (1 - share) * (1 - chance).log())


FORMULAS = {
    "ignore": (Reward(raters="ignore"), lambda c, r: bradley_terry(c, r).mean()),
    "margin": (Reward(), lambda c, r: bradley_terry(c, r, margin=MARGIN).mean()),
    "soft": (Reward(raters="soft"), lambda c, r: bradley_terry(c, r, SHARE).mean()),
    "weight": (
        Reward(raters="weight"),
        lambda c, r: (bradley_terry(c, r) * (2 * SHARE - 1)).sum() / (2 * SHARE - 1).sum(),
    ),
    "centred": (
        Reward(center_rewards_coefficient=0.01),
        lambda c, r: bradley_terry(c, r, margin=MARGIN).mean() + 0.01 * ((c + r) ** 2).mean(),
    ),
}


def judged(objective, score):
    twice = {name: value.repeat_interleave(2) for name, value in (("margin", MARGIN), ("agreement", SHARE))}
    loss = objective.loss(SimpleNamespace(**twice), score[:, None])
    return loss.sum / loss.count


@pytest.mark.parametrize("name", FORMULAS)
def test_the_loss_and_its_gradient_are_the_formulas(name):
    objective, formula = FORMULAS[name]
    torch.manual_seed(0)
    score = torch.randn(8, dtype=torch.float64, requires_grad=True)
    ours, theirs = judged(objective, score), formula(score[::2], score[1::2])
    torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=0)
    [gradient], [expected] = (torch.autograd.grad(loss, score) for loss in (ours, theirs))
    torch.testing.assert_close(gradient, expected, atol=1e-9, rtol=0)


def test_the_loss_is_that_of_trl_1_16():
    """As trl/trainer/reward_trainer.py of 1.16.0 computes it of rewards with margins and a centre."""
    torch.manual_seed(1)
    chosen, rejected = torch.randn(4, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    expected = -torch.nn.functional.logsigmoid(chosen - rejected - MARGIN).mean()
    expected += 0.02 * torch.mean((chosen + rejected) ** 2)
    ours = judged(Reward(center_rewards_coefficient=0.02), torch.stack([chosen, rejected], 1).flatten())
    assert float(ours) == pytest.approx(float(expected), abs=1e-12)


def test_every_way_of_taking_raters_is_another_loss():
    torch.manual_seed(2)
    score = torch.randn(8, dtype=torch.float64)
    found = {round(float(judged(objective, score)), 9) for objective, _ in FORMULAS.values()}
    assert len(found) == len(FORMULAS)


# --- whole runs -------------------------------------------------------------------------------------------------------


def pairs_file(folder, **more):
    rows = [
        {
            "prompt": "judge the film",
            "chosen": f"a warm and funny story {n}",
            "rejected": f"a dull, lifeless mess {n}",
            "chosen_ratings": [4, 3, n % 3],
            "rejected_ratings": [0, 1, -2],
            **more,
        }
        for n in range(24)
    ]
    file = folder / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def rewarded(base, file, output, method, objective, **more):
    steps = Train(max_steps=8, learning_rate=1e-2, per_device_train_batch_size=4)
    data = Data(path=str(file), eval_size=0.3, **more)
    parts = {"method": method, "objective": objective, "train": steps, "eval": Eval(max_samples=8)}
    return Run(model=Model(path=str(base)), data=data, output=str(output), **parts)


PLAIN = """
import sys, json, os, torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer
def score(model, ids):
    with torch.no_grad():
        logits = model(ids).logits
    assert logits.shape == (1, 1) and model.config.num_labels == 1
    return float(logits)
def scores(base, run, text):
    adapter = os.path.isdir(run + "/adapter")
    tokenizer = AutoTokenizer.from_pretrained(run + ("/adapter" if adapter else "/model"))
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    if not adapter:
        return [score(AutoModelForSequenceClassification.from_pretrained(run + "/model").eval(), ids)]
    whole = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    whole.config.pad_token_id = tokenizer.pad_token_id
    model = PeftModel.from_pretrained(whole, run + "/adapter").eval()
    found = [score(model, ids)]
    model.merge_and_unload().save_pretrained(run + "/merged")
    return [*found, score(AutoModelForSequenceClassification.from_pretrained(run + "/merged").eval(), ids)]
print(json.dumps([scores(*asked) for asked in json.loads(sys.argv[1])]))
"""
STOPS = {"stop and line": "<|im_end|>\n", "stop that pads": "<|im_end|>"}


def test_reward_models_score_the_same_without_us(model_folder, tmp_path):
    """Also where an answer ends with the token that pads, which transformers passes over."""
    file, answer = pairs_file(tmp_path), "a dull, lifeless story"
    said = [{"role": "user", "content": "judge the film"}, {"role": "assistant", "content": answer}]
    template, asked, found = load_tokenizer(model_folder).chat_template, [], []
    for (name, stops), method in product(STOPS.items(), (LoRA(r=4), Full())):
        run = tmp_path / f"{method.name}, {name}"
        tokenizer = load_tokenizer(model_folder)
        tokenizer.chat_template = template.replace("<|im_end|>\n", stops)
        tokenizer.save_pretrained(model_folder)
        result = train(rewarded(model_folder, file, run, method, Reward(raters="soft")), quiet=True)
        assert result.after["accuracy"] == 1.0, run.name
        assert result.after["brier"] < result.before["brier"], run.name
        tuned = load_run(run)
        asked.append([str(model_folder), str(run), tokenizer.apply_chat_template(said, tokenize=False)])
        found.append([tuned.score("judge the film", answer)] * (2 if isinstance(method, LoRA) else 1))
        assert tuned.score("judge the film", "a warm and funny story") > found[-1][0], run.name
        with pytest.raises(TooLong):
            tuned.score("judge the film", "warm " * 3000, whole=True)
    words = [sys.executable, "-W", "ignore", "-c", PLAIN, json.dumps(asked)]
    ran = subprocess.run(words, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == [pytest.approx(scores, abs=1e-5) for scores in found]


def test_a_reward_model_is_measured_and_shown_and_does_not_chat(model_folder, tmp_path, capsys):
    run = tmp_path / "run"
    train(rewarded(model_folder, pairs_file(tmp_path), run, LoRA(r=4), Reward()), quiet=True)
    with pytest.raises(SystemExit) as ended:
        main(["eval", str(run), "--json"])
    assert ended.value.code == 0
    again = json.loads(capsys.readouterr().out)
    facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
    for name in ("accuracy", "brier", "calibration_error", "one_rater", "half_of_raters"):
        assert again[name] == pytest.approx(facts["after"][name], abs=1e-5), name
    assert facts["samples"][0]["after"].startswith("A (")
    html = (run / "report.html").read_text(encoding="utf-8")
    for part in ("half of the raters agree", "Brier score", "calibration error", "<h2>Calibration</h2>"):
        assert part in html
    with pytest.raises(SystemExit):
        main(["chat", str(run)])
    assert "scores answers and writes none" in capsys.readouterr().err
    with pytest.raises(RecipeError, match="has not learnt to tell classes apart"):
        load_run(run).classify("a story")


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"rejected_ratings": None}, "has scores in 'chosen_ratings' and none in 'rejected_ratings'"),
        ({"chosen_ratings": [-4]}, "says that rejected is better than chosen, by"),
        ({"chosen_ratings": [-4], "margin": 1}, "by 3.667 .chosen_ratings and rejected_ratings."),
        ({"margin": -1}, "by 1 .column 'margin'."),
        ({"chosen_ratings": ["good"]}, "column 'chosen_ratings' must hold numbers"),
        ({"chosen_ratings": "[]"}, "column 'chosen_ratings' must hold numbers .got an empty list"),
        ({"margin": "much"}, "column 'margin' must hold numbers"),
        ({"agreement": 0.2}, "the share of raters who hold chosen to be the better, from 0.5 to 1 .got 0.2"),
        ({"chosen_ratings": None, "rejected_ratings": None}, "does not say how many raters agree.*=ignore"),
        (
            {"rejected": "a dull mess", "chosen": "a dull mess"},
            "come to the same tokens, so that neither is the better",
        ),
    ],
)
def test_what_raters_cannot_have_said_is_named_by_file_and_line(model_folder, tmp_path, more, sentence):
    file = pairs_file(tmp_path, **more)
    with pytest.raises(DataError, match=rf"pairs.jsonl:\d+: .*{sentence}"):
        train(rewarded(model_folder, file, tmp_path / "run", LoRA(r=4), Reward(raters="soft")), quiet=True)


def test_a_row_of_one_answer_is_named_by_file_and_line(model_folder, tmp_path):
    file = pairs_file(tmp_path)
    with file.open("a", encoding="utf-8") as opened:
        opened.write('{"prompt": "judge the film", "chosen": "a warm story", "rejected": null}\n')
    with pytest.raises(DataError, match=r"pairs.jsonl:25: .*column 'rejected' must be text"):
        train(rewarded(model_folder, file, tmp_path / "run", LoRA(r=4), Reward()), quiet=True)
