"""Law: no option of a reward is dead. Another value of it gives some answer another number.

The schema is walked, so that a new option is tried by being there; what cannot be made up is in `SCORED`.
"""

import pytest
from laws.test_dead_options import others

from tunesmith.config.describe import rows
from tunesmith.config.load import load
from tunesmith.rewards.base import Said
from tunesmith.rollout.score import Scoring, refuse_rewards
from tunesmith.run import Run

NEEDED = {"length": {"target": 4}, "regex": {"pattern": "(four|five)"}, "function": {"path": "worth.py:worth"}}
"""What a reward must be told."""
SCHEMA = '{"type": "array"}'
SCORED = {
    "length.target": 2,
    "length.tolerance": 3,
    "regex.pattern": "(FOUR|six)",
    "json_schema.file": "schema.json",
    "math_equal.tolerance": 0.1,
    "function.path": "worth.py:worthless",
}
UNSCORED = {
    "function.batch": "tests/rewards/test_function.py: it is then called with lists",
    "function.timeout": "tests/rewards/test_function.py: who takes longer is not scored",
    "regex.timeout": "tests/rewards/test_rewards.py: an expression that takes for ever",
    "judge.": "asks a server: test_another_judge_asks_otherwise, in tests/rollout/test_judge.py",
    "model.": "asks a model: tests/rollout/test_tools.py; how many at once changes no figure",
}
"""What is seen elsewhere."""
WORTH = "def worth(completion):\n    return len(completion)\n\n\ndef worthless(completion):\n    return 0.0\n"
WRITTEN = [
    ("four", "four"), ("Four.", "four"), ("so\nfour", "four"), ("one two three four", "4"), ("4.1", "4"),
    ("\\boxed{4}", "4"), ("4", "4"), ("{}", "4"), ("[1]", "4"), ("```json\n[1]\n```", "4"), ("FOUR, 4", "4"),
    ("一二三四", "4"), ("five six five six five six", "4"), ("Ελλάς", "4"), ("кот", "4"), ("한국", "4"), ("ねこ", "4"),
    ("אבג", "4"), ("عرب", "4"), ("देव", "4"), ("ไทย", "4"),
]  # fmt: skip
"""Answers, and what is right."""


def scored_options():
    """Every option of every reward, and other values of it."""
    for row in rows(Run):
        name, option = row.when.partition("=")[2], row.path.removeprefix("rewards.N.")
        case = f"{name}.{option}"
        if row.path == option or case in UNSCORED or f"{name}." in UNSCORED:
            continue
        for value in [SCORED[case]] if case in SCORED else others(row):
            yield pytest.param(name, option, value, id=f"{case}={value}")


@pytest.mark.parametrize(("name", "option", "value"), list(scored_options()))
def test_another_way_to_score_scores_otherwise(name, option, value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "worth.py").write_text(WORTH)
    (tmp_path / "schema.json").write_text(SCHEMA)
    answers = [
        Said(asked, ({"role": "user", "content": asked},), text, right, {}, len(text) // 2, True)
        for text, right in WRITTEN
        for asked in ("what?", "什么?")
    ]

    def told(**options):
        every = {"name": name} | NEEDED.get(name, {}) | options
        settings = [f"rewards.0.{key}={item}" for key, item in every.items()]
        run = load(Run, None, ["model.path=a", "data.path=b", "objective=grpo", *settings]).value
        refuse_rewards(run.rewards)
        with Scoring(run.rewards) as scoring:
            return scoring.score(answers).total

    before, after = told(), told(**{option: value})
    assert before != after, before


def test_what_is_scored_elsewhere_is_there():
    there = {f"{row.when.partition('=')[2]}.{row.path.removeprefix('rewards.N.')}" for row in rows(Run) if row.when}
    assert {name for name in [*SCORED, *UNSCORED] if not any(one.startswith(name) for one in there)} == set()
