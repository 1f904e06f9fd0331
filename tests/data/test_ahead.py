"""Work in other processes comes to what it comes to here, in order; and however it ends, it leaves nobody behind."""

import os
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import pytest

from tunesmith.data.keeping import ahead as ahead_
from tunesmith.data.keeping.ahead import ahead
from tunesmith.errors import BadEnvironment, DataError

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are forked on Linux only")


@pytest.fixture(autouse=True)
def two(monkeypatch):
    monkeypatch.setattr(ahead_, "processors", lambda: 2)


@pytest.mark.parametrize("count", [0, 1, ahead_.ALONE, ahead_.ALONE + 1, 40])
def test_the_results_are_in_order_and_none_is_missing(count):
    def work(thing):
        time.sleep(0.01 * (thing % 3))
        return thing, os.getpid()

    found = list(ahead(work, range(count)))
    assert [thing for thing, _ in found] == [*range(count)]
    assert {pid for _, pid in found[: ahead_.ALONE]} <= {os.getpid()}
    assert os.getpid() not in {pid for _, pid in found[ahead_.ALONE :]}


def test_only_a_few_things_are_taken_ahead():
    taken = []
    results = ahead(lambda thing: thing, (taken.append(n) or n for n in range(1000)))
    list(islice(results, 10))
    assert len(taken) < 20
    results.close()


def test_several_may_be_under_way_at_once():
    """Each has processes of its own, which know what they are for."""
    one, other = (ahead(lambda thing, sign=sign: thing * sign, range(60)) for sign in (1, -1))
    assert list(zip(one, other, strict=True)) == [(n, -n) for n in range(60)]


def test_an_error_is_that_of_the_work():
    def work(thing):
        if thing == 9:
            raise DataError("row 9")
        return thing

    results = ahead(work, range(20))
    assert list(islice(results, 9)) == [*range(9)]
    with pytest.raises(DataError, match="row 9"):
        next(results)


def test_a_process_that_is_killed_is_named_and_not_waited_for():
    def work(thing):
        if thing == 9:
            os.kill(os.getpid(), signal.SIGKILL)
        return thing

    began = time.monotonic()
    with pytest.raises(BadEnvironment, match="was killed"):
        list(ahead(work, range(20)))
    assert time.monotonic() - began < 30


def test_the_processes_end_with_the_one_that_forked_them(tmp_path):
    program = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from tunesmith.data.keeping import ahead\n"
        "ahead.processors = lambda: 2\n"
        "def work(thing):\n"
        "    Path(sys.argv[1], str(os.getpid())).touch()\n"
        "    time.sleep(thing if thing > 3 else 0)\n"
        "list(ahead.ahead(work, [0] * 4 + [60] * 4))\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)])
    while len(list(tmp_path.iterdir())) < 3:
        assert parent.poll() is None
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    left = [int(file.name) for file in tmp_path.iterdir()]
    until = time.monotonic() + 20
    while any(alive(pid) for pid in left):
        assert time.monotonic() < until
        time.sleep(0.1)


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
