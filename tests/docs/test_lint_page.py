"""docs/lint.md says of each rule what the rule says."""

from docs.lint_page import PAGE, page


def test_the_page_is_that_of_the_rules():
    assert PAGE.read_text(encoding="utf-8") == page(), "python tests/docs/lint_page.py writes it anew"
