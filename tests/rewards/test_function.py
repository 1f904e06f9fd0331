"""A function of the user's own scores answers in a process of its own, whatever it does there."""

import os
import time

import pytest

from tunesmith.errors import RecipeError
from tunesmith.rewards.base import Said
from tunesmith.rewards.function import Function

FILE = """
import os, sys, time

def length(completion):
    print("what it prints is not what it says")
    return len(completion)

def all_of_it(prompt, completion, truth, row, messages, tokens, stopped):
    assert messages[0]["role"] == "user" and stopped is True
    return len(prompt) + (truth == "t") + row["n"] + tokens

def bad(completion):
    match completion:
        case "raise": raise KeyError("missing")
        case "exit": sys.exit(3)
        case "die": os._exit(7)
        case "hang": time.sleep(60)
        case "nan": return float("nan")
        case "none": return None
        case "text": return "good"
        case "thing": return object()
        case "flag": return True
        case "huge": return 10**400
    return 1.5

def pid(completion):
    return os.getpid()

def many(completions, rows):
    return [len(text) + row["n"] for text, row in zip(completions, rows)]

def few(completions):
    return [1.0]

def other(completion, colour):
    return 1
"""


@pytest.fixture
def path(tmp_path):
    (tmp_path / "mine.py").write_text(FILE)
    return lambda name: f"{tmp_path / 'mine.py'}:{name}"


def said(completion, n=1):
    turns = ({"role": "user", "content": "why"},)
    return Said("why", turns, completion, "t", {"n": n}, 3, True)


def test_it_gets_what_it_asks_for(path):
    assert Function(path=path("length")).score([said("aaa"), said("")]) == [3, 0]
    assert Function(path=path("all_of_it")).score([said("aaa", 10)]) == [3 + 1 + 10 + 3]
    assert Function(path=path("many"), batch=True).score([said("a", 1), said("bb", 5)]) == [2, 7]


def test_what_it_does_wrong_is_counted_and_it_goes_on(path):
    words = [
        "fine",
        "raise",
        "fine",
        "exit",
        "die",
        "fine",
        "hang",
        "fine",
        "nan",
        "none",
        "text",
        "thing",
        "flag",
        "huge",
    ]
    with Function(path=path("bad"), timeout=3.0).scorer(None) as scorer:
        start = time.monotonic()
        found = dict(zip(enumerate(words), scorer.score([said(word) for word in words]), strict=True))
        assert time.monotonic() - start < 45
    assert [value for (_, word), value in found.items() if word == "fine"] == [1.5] * 4
    assert {word for (_, word), value in found.items() if value is None} == {*words} - {"fine", "flag"}
    assert found[12, "flag"] == 1.0
    reasons = "\n".join(scorer.reasons)
    for part in (
        "mine.py:14: bad raised KeyError: 'missing'",
        "exit code 7",
        "longer than 3 s",
        "gave nan",
        "gave None",
    ):
        assert part in reasons, reasons
    assert scorer.reasons.total() == 9


def test_a_batch_of_the_wrong_length_is_not_scored(path):
    with Function(path=path("few"), batch=True).scorer(None) as scorer:
        assert scorer.score([said("a"), said("b")]) == [None, None]
        assert scorer.score([said("a")]) == [1.0]
    assert "a list of 2 numbers (gave 1 values)" in next(iter(scorer.reasons))


def test_the_process_is_another_one_and_ends(path):
    with Function(path=path("pid")).scorer(None) as scorer:
        [child] = scorer.score([said("a")])
        assert child != os.getpid() and scorer.score([said("b")]) == [child]
    with pytest.raises(ProcessLookupError):
        os.kill(int(child), 0)


@pytest.mark.parametrize(
    ("name", "why"),
    [("nothing", "has no function nothing"), ("other", "asks for colour; its arguments may be prompt, completion")],
)
def test_a_function_that_cannot_be_asked_is_refused(path, name, why):
    with pytest.raises(RecipeError, match=why):
        Function(path=path(name)).score([said("a")])


@pytest.mark.parametrize("bad", ["mine.py", "nowhere.py:f", "mine.txt:f", "mine.py:not a name"])
def test_a_path_that_is_none_is_refused_before_anything_is_read(bad):
    with pytest.raises(RecipeError, match=r"rewards.0.path: "):
        Function(path=bad).refuse("rewards.0")
