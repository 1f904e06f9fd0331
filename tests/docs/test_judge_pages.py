"""The pages about rewards and judges name every reward with its options, and what they show loads."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from tunesmith.config.load import load
from tunesmith.rewards.base import reward
from tunesmith.rollout.calibration import FIGURES, LEAST
from tunesmith.rollout.judge import AT_ONCE
from tunesmith.rollout.judging import THRESHOLD, Judging, Labelling, Teaching
from tunesmith.run import Run

DOCS = Path(__file__).parents[2] / "docs"
KINDS = {"teach": Teaching, "calibrate": Judging, "label": Labelling}


def pages(name):
    return [(DOCS / file).read_text(encoding="utf-8") for file in (f"{name}.md", f"{name}.zh.md")]


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


@pytest.mark.parametrize("name", ["judge", "rewards"])
def test_both_languages_show_the_same(name):
    english, chinese = pages(name)
    for language in ("yaml", "python", "bash"):
        assert blocks(english, language) == blocks(chinese, language)


def test_the_tables_name_every_reward_with_its_options():
    for page in pages("rewards"):
        rows = {row[0]: row[1] for row in re.findall(r"^\| `(\w+)` \|.*\| ([^|]*) \|$", page, re.MULTILINE)}
        assert rows.keys() == reward.all().keys()
        for name, entry in reward.all().items():
            assert re.findall(r"`(\w+)`", rows[name]) == [one.name for one in fields(entry) if one.name != "weight"]
        recipe = load(Run, text=blocks(page, "yaml")[0]).value
        assert [one.name for one in recipe.rewards] == ["math_equal", "regex", "function", "repetition"]


def test_what_is_said_of_judges_loads_and_its_numbers_are_true():
    for page in pages("judge"):
        settings, *others = blocks(page, "yaml")
        for shown in (settings, *others):
            load(Judging, text=shown, words=["data.path=rows.jsonl"])
        for line in "".join(blocks(page, "bash")).splitlines():
            words = [word for word in line.split() if "=" in word]
            if line.startswith("tunesmith train "):
                load(Run, DOCS.parent / line.split()[2], words=words)
            elif line.startswith("tunesmith judge "):
                load(KINDS[line.split()[2]], text=settings, words=words)
        assert set(FIGURES) <= set(re.findall(r"`(\w+)`", page))
        assert all(str(number) in page for number in (LEAST, AT_ONCE, THRESHOLD))
