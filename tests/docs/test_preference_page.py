"""docs/preference.md and its translation say what the losses say."""

import pytest
from docs.preference_page import DOCS, against, pages
from parity.test_preference import TRL


@pytest.mark.parametrize("name", ["preference.md", "preference.zh.md"])
def test_the_page_is_what_is_made_of_the_losses(name):
    assert (DOCS / name).read_text(encoding="utf-8") == pages()[name]


def test_the_table_shows_no_difference():
    assert all(abs(against(case)[0] - case["value"]) < 1e-5 and against(case)[1] < 1e-5 for case in TRL["cases"])
