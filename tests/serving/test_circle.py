"""The circle: a server answers, a person rates, a run learns from it by KTO, and a server of the run is liked more."""

import sqlite3
from contextlib import closing

import pytest
from served import running, send

from tunesmith.cli import main
from tunesmith.evaluate.metrics import gain

MOODS = ("warm", "dull", "funny", "lifeless", "good", "quick", "lazy", "brown", "over", "helpful")
RATED = [f"is the film {word}?" for word in MOODS]
THINGS = ("capital", "fox", "dog", "cast", "story", "film", "review", "word", "friend", "mess")
HELD_OUT = [f"what is the {word} of it?" for word in THINGS]
TWENTY = 8 * [0] + 8 * [1] + 4 * [2]


def likes(text):
    """The person's rule: an answer has to begin with a plain letter, or a space."""
    return text[:1] == " " or (text[:1].isascii() and text[:1].isalpha())


def talks(site, model, questions):
    """Twenty answers to each question, by OpenAI's client; the same draws for the same place whatever the model."""
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=f"{site}/v1", api_key="none", max_retries=0)
    made = []
    for number, text in enumerate(questions):
        asked = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 2}
        for part in sorted(set(TWENTY)):
            one = client.chat.completions.create(**asked, n=TWENTY.count(part), seed=10 * number + part)
            made += [(one.id, choice.index, choice.message.content) for choice in one.choices]
    return made


def test_what_a_person_likes_is_learnt_from_ratings(shelf, tmp_path):
    file, run = tmp_path / "said.sqlite", tmp_path / "tuned"
    with running(shelf, feedback=str(file)) as site:
        before = talks(site, "tiny", HELD_OUT)
        rated = talks(site, "tiny", RATED)
        for id, index, text in rated:
            said = {"response_id": id, "index": index, "thumb": "up" if likes(text) else "down", "rater": "person"}
            assert send(site, "/v1/feedback", said)[0] == 200
    assert len(rated) == 200
    with closing(sqlite3.connect(file)) as base:
        assert base.execute("SELECT count(*) FROM verdicts").fetchone() == (200,)
    next_, base = str(tmp_path / "next"), str(shelf / "tiny")
    with pytest.raises(SystemExit) as left:
        main([
            "feedback", "train", str(file), "--as", "kto", "--base", base, "--to", next_, f"output={run}",
            "method=full", "train.learning_rate=1e-2", "train.max_steps=24", "train.per_device_train_batch_size=16",
            "data.eval_size=0", "data.on_lint=warn", "eval.enabled=false",
        ])  # fmt: skip
    assert not left.value.code
    with running(shelf, model=str(run)) as site:
        after = talks(site, "tuned", HELD_OUT)
    liked = [[float(likes(text)) for *_, text in side] for side in (before, after)]
    rose = gain(*liked)
    assert 0.2 < sum(liked[0]) / 200 < 0.8
    assert rose["gain_low"] > 0, rose
