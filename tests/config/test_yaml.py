"""YAML 1.2 is read so that nothing in it can be mistaken."""

import pytest

from tunesmith.config.yaml import read_word, read_yaml
from tunesmith.errors import RecipeError


def test_values_are_those_of_yaml_1_2():
    text = "a: yes\nb: 1e-4\nc: 0o17\nd: null\ne: 010\nf: true\ng: on\nh: -.5\ni: '1'\n"
    said = {"a": "yes", "b": 1e-4, "c": 15, "d": None, "e": 10, "f": True, "g": "on", "h": -0.5, "i": "1"}
    assert read_yaml(text, "x").value == said


@pytest.mark.parametrize("text", ["2026-01-01", "1_000", "0b11", "=", "1:30", "1.2.3", "+", "-_", "y", "n", "0o8"])
def test_what_is_no_number_in_yaml_1_2_is_text(text):
    assert read_yaml(f"a: {text}", "x").value == {"a": text}
    assert read_word(text, "x") == text


def test_what_is_repeated_by_an_anchor_is_read_again():
    tree = read_yaml("a: &x {b: [1, 2]}\nc: *x\nd: &x 3\ne: *x\n", "x")
    assert tree.value == {"a": {"b": [1, 2]}, "c": {"b": [1, 2]}, "d": 3, "e": 3}
    assert tree.value["a"] is not tree.value["c"]


def test_every_key_knows_its_line():
    tree = read_yaml("# a comment\na:\n  b: 1\n\n  c: {d: 2,\n    e: 3}\n", "x")
    assert tree.lines == {("a",): 2, ("a", "b"): 3, ("a", "c"): 5, ("a", "c", "d"): 5, ("a", "c", "e"): 6}


def test_an_empty_document_says_nothing():
    assert read_yaml("", "x") == read_yaml("# only a comment\n", "x") == ({}, {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "r.yaml:3: the key a stands on line 1 already"),
        ("a: {b: 1, b: 2}", "r.yaml:1: the key b stands on line 1 already"),
        ("a: !!python/object/apply:os.system [ls]", "r.yaml:1: the tag tag:yaml.org,2002:python/object/apply"),
        ("a: !mine 1", "r.yaml:1: the tag !mine is not allowed"),
        ("a: !!int '3'", "r.yaml:1: the tag tag:yaml.org,2002:int is not allowed"),
        ("%YAML 1.1\n---\na: yes", "must not give orders to the reader"),
        ("a: *b", "r.yaml:1: *b stands for nothing"),
        ("<<: {a: 1}", "r.yaml:1: a key must be a word"),
        ("a: " + "9" * 5000, "r.yaml:1: the number 99999999999999999999... is too long"),
        ("a: [1", "is not YAML"),
        ("a: b: c", "r.yaml:1: is not YAML"),
        ("- a\n- b", "r.yaml:1: must be keys with values"),
        ("just text", "r.yaml:1: must be keys with values"),
        ("1: a", "r.yaml:1: a key must be a word"),
        ("? [a]\n: b", "r.yaml:1: a key must be a word"),
        ("a: 1\n---\nb: 2", "r.yaml:2: must be one document"),
        ("a: &x [*x]", "nested too deep"),
        ("a: " + "[" * 60 + "]" * 60, "nested too deep"),
        ("a: " + "[" * 5000 + "]" * 5000, "nested too deep"),
        ("#" * 2**20 + "x", "is larger than 1 MiB"),
        ("#" + "é" * 2**19, "is larger than 1 MiB"),
    ],
)
def test_what_a_recipe_does_not_need_is_refused(text, message):
    with pytest.raises(RecipeError, match=r"^r\.yaml") as caught:
        read_yaml(text, "r.yaml")
    assert message in str(caught.value)


def test_a_laughing_billion_is_not_laughed_at():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    with pytest.raises(RecipeError, match="repeats itself too often"):
        read_yaml("\n".join(lines), "r.yaml")


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("1e-3", 1e-3),
        ("true", True),
        ("null", None),
        ("", None),
        ("[a, b]", ["a", "b"]),
        ("{a: 1}", {"a": 1}),
        ("a b", "a b"),
        ("{x}", "{x}"),
        ("{x} is it: {y}", "{x} is it: {y}"),
        ("{}", {}),
        ('{"a": [1]}', {"a": [1]}),
        ("is it: {x} # no", "is it: {x} # no"),
        ("- a", "- a"),
        ("@x", "@x"),
        ("# x", "# x"),
        ("&x", "&x"),
        ("*.py", "*.py"),
        ("!x", "!x"),
        ("'1'", "1"),
    ],
)
def test_a_word_is_read_as_a_value(word, value):
    assert read_word(word, "x") == value
