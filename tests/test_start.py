"""A program that trains begins again with what must be in its environment, once, and with what the user set."""

import json
import os
import platform
import subprocess
import sys

import pytest

from tunesmith.start import BEFORE

PROGRAM = """
import json, os, sys
from tunesmith.start import begin_again
print("begun", flush=True)
begin_again()
print(json.dumps([dict(os.environ), sys.argv[1:], "torch" in sys.modules]))
"""

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="nothing is said to another C library")


def told(**environment):
    usual = {name: value for name, value in os.environ.items() if name not in BEFORE}
    words = [sys.executable, "-c", PROGRAM, "two words", "--x"]
    done = subprocess.run(words, env=usual | environment, capture_output=True, text=True, check=True)
    *begun, last = done.stdout.splitlines()
    return len(begun), *json.loads(last)


def test_it_begins_again_once_with_the_same_words():
    times, environment, words, torch = told()
    assert times == 2 and words == ["two words", "--x"] and not torch
    assert {name: environment[name] for name in BEFORE} == BEFORE


def test_what_the_user_set_stands():
    times, environment, *_ = told(GLIBC_TUNABLES="glibc.malloc.check=0")
    assert times == 2 and environment["GLIBC_TUNABLES"] == "glibc.malloc.check=0"
    assert told(**BEFORE)[0] == 1


def test_only_commands_that_train_begin_again():
    ask = "import os, sys; sys.argv = ['x', {word!r}, '--help']; from tunesmith.cli import main\ntry: main()\n"
    ask += "except SystemExit: pass\nprint('GLIBC_TUNABLES' in os.environ)"
    usual = {name: value for name, value in os.environ.items() if name not in BEFORE}
    for word, expected in (("train", "True"), ("runs", "False")):
        done = subprocess.run(
            [sys.executable, "-c", ask.format(word=word)], env=usual, capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines()[-1] == expected
