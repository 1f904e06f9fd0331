"""What the pages about data show can be done, and both languages show the same."""

import re
from pathlib import Path

from tunesmith.config.load import load
from tunesmith.run import Run

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [(DOCS / name).read_text(encoding="utf-8") for name in ("data.md", "data.zh.md")]


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


def test_both_languages_show_the_same():
    for language in ("yaml", "python"):
        assert blocks(PAGES[0], language) == blocks(PAGES[1], language)
    commands = [re.findall(r"^tunesmith [^#\n]*", "".join(blocks(page, "bash")), re.MULTILINE) for page in PAGES]
    assert commands[0] == commands[1]
    names = [re.findall(r"^\| `(\w+)`", page, re.MULTILINE) for page in PAGES]
    assert names[0] == names[1]


def test_the_recipe_loads():
    [recipe] = blocks(PAGES[0], "yaml")
    data = load(Run, text=recipe).value.data
    assert [source.path for source in data.also] == ["org/chat", "more/*.csv"]
    assert data.also[1].format.question == "asked"
