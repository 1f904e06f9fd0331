"""A reward model says of a dialogue what its own library says, be it a run of ours or from elsewhere."""

import json

import pytest
import torch

from tunesmith.cli import main
from tunesmith.errors import RecipeError
from tunesmith.rewards.base import Said
from tunesmith.rewards.model import RewardModel
from tunesmith.rollout.score import Scoring
from tunesmith.rollout.tools import Models

TEXTS = ["a warm and funny story", "dull", "yes " * 30]


def said(text):
    return Said("how is it?", ({"role": "user", "content": "how is it?"},), text, None, {}, 3, True)


def logits(model, tokenizer, text):
    """What a classifier says of one dialogue, by itself."""
    turns = [{"role": "user", "content": "how is it?"}, {"role": "assistant", "content": text}]
    written = tokenizer.apply_chat_template(turns, tokenize=False)
    ids = tokenizer(written, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        return model.eval()(input_ids=torch.tensor([ids])).logits[0].double()


@pytest.fixture
def folder(tmp_path, tiny, tokenizer):
    """A classifier with one output, as AutoModelForSequenceClassification saves it."""
    place = tmp_path / "reward"
    tiny(labels=1).save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


def test_a_classifier_from_elsewhere_is_asked_as_transformers_asks_it(folder, tiny, tokenizer):
    model = tiny(labels=1)
    with Scoring([RewardModel(path=str(folder), batch_size=2)], Models()) as scoring:
        scored = scoring.score([said(text) for text in TEXTS])
    assert scored.total == pytest.approx([float(logits(model, tokenizer, text)) for text in TEXTS], abs=1e-4)
    assert len(set(scored.total)) == 3


@pytest.mark.parametrize("kind", ["single_label_classification", "multi_label_classification"])
def test_a_class_of_a_classifier_is_scored_by_its_log_odds(tmp_path, tiny, tokenizer, kind):
    model, place = (
        tiny(labels=3, id2label=dict(enumerate(["bad", "fair", "good"])), problem_type=kind),
        tmp_path / "three",
    )
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)
    rewards = [RewardModel(path=str(place), label=label, batch_size=2) for label in ("good", "bad")]
    tools = Models()
    with Scoring(rewards, tools) as scoring:
        got = scoring.score([said(text) for text in TEXTS]).each
    for at, name in ((2, "model"), (0, "model_2")):
        wanted = []
        for text in TEXTS:
            each = logits(model, tokenizer, text)
            chance = each.softmax(-1)[at] if kind.startswith("single") else each[at].sigmoid()
            wanted.append(float((chance / (1 - chance)).log()))
        assert got[name] == pytest.approx(wanted, abs=1e-4)
    assert len(tools.held) == 1  # it is in memory once
    with pytest.raises(RecipeError, match=r"has no kind among 3 outputs; .* to have: bad, fair, good"):
        Models().classifier(str(place), 4, "kind")


def test_what_is_no_reward_model_is_refused(tmp_path, folder, tiny, tokenizer, model_folder):
    two = tmp_path / "two"
    tiny(labels=2).save_pretrained(two)
    tokenizer.save_pretrained(two)
    with pytest.raises(RecipeError, match=r"has 2 outputs; a reward model has one, .* label .*: LABEL_0, LABEL_1"):
        Models().classifier(str(two), 4)
    with pytest.raises(RecipeError, match="has one output, which is its score; leave label=good out"):
        Models().classifier(str(folder), 4, "good")
    config = json.loads((model_folder / "config.json").read_text())
    (model_folder / "config.json").write_text(json.dumps(config | {"id2label": {"0": "LABEL_0"}}))
    with pytest.raises(RecipeError, match="has no trained head"):
        Models().classifier(str(model_folder), 4)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_run_of_ours_is_a_reward_model(tmp_path, model_folder, method):
    data = tmp_path / "pairs.jsonl"
    row = {"prompt": "how is it?", "chosen": "a warm and funny story", "rejected": "dull"}
    data.write_text("".join(json.dumps(row | {"prompt": f"how is it? {n}"}) + "\n" for n in range(12)))
    out = tmp_path / "run"
    words = [f"model.path={model_folder}", f"data.path={data}", "objective=reward", f"method={method}"]
    more = ["train.num_train_epochs=6", "train.learning_rate=0.01", "eval.enabled=false", f"output={out}"]
    with pytest.raises(SystemExit) as left:
        main(["train", *words, *more])
    assert not left.value.code
    with Scoring([RewardModel(path=str(out))], Models()) as scoring:
        good, bad, _ = scoring.score([said(text) for text in TEXTS]).total
    assert good > bad + 1
    with pytest.raises(RecipeError, match="has 2 outputs"):
        Models().classifier(str(model_folder), 4)


def test_a_run_of_another_objective_is_no_reward_model(tmp_path, model_folder, reviews):
    out = tmp_path / "run"
    words = [f"model.path={model_folder}", f"data.path={reviews}", "objective=classify", "train.max_steps=1"]
    with pytest.raises(SystemExit):
        main(["train", *words, "eval.enabled=false", f"output={out}"])
    with pytest.raises(RecipeError, match="objective is classify; name a run of reward"):
        Models().classifier(str(out), 4)
