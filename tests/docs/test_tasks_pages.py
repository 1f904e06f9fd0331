"""The recipes of the pages about tasks load, and both languages show the same."""

import re
from pathlib import Path

from tunesmith.config.load import load
from tunesmith.run import Run

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [(DOCS / name).read_text(encoding="utf-8") for name in ("tasks.md", "tasks.zh.md")]


def test_both_languages_show_the_same_recipes_which_load():
    english, chinese = (re.findall(r"```(\w+)\n(.*?)```", page, re.DOTALL) for page in PAGES)
    assert english == chinese
    recipes = [load(Run, text=text).value for kind, text in english if kind == "yaml"]
    assert [recipe.objective.name for recipe in recipes] == ["classify", "mixed"]
    assert [source.task for source in recipes[0].data.also] == ["topics", "stars"]
