"""The pages about serving name every key and every address, and both languages say the same."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from tunesmith.serving.settings import Serving

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [(DOCS / name).read_text(encoding="utf-8") for name in ("serving.md", "serving.zh.md")]


def test_both_languages_show_the_same():
    english, chinese = (re.findall(r"```(\w+\n.*?)```", page, re.DOTALL) for page in PAGES)
    assert english == chinese
    ticked = [set(re.findall(r"^\| `(.*?)` \|", page, re.MULTILINE)) for page in PAGES]
    assert ticked[0] == ticked[1]


@pytest.mark.parametrize("page", PAGES, ids=["english", "chinese"])
def test_every_key_address_and_field_is_named(page):
    from tunesmith.serving.app import Site
    from tunesmith.serving.wire import Sampled

    named = set(re.findall(r"`([\w/]+)`", page)) | set(re.findall(r"`(?:GET|POST) ([\w/]+)`", page))
    assert {field.name for field in fields(Serving)} <= named
    assert {field.name for field in fields(Sampled)} - {"model", "max_tokens", "user", "stream_options"} <= named
    site = Site.__new__(Site)
    assert {path for path in Site.posts(site)} <= named
