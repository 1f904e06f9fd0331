"""One run, one process: who owns a run, who takes it over, who is refused, and who is told to stop."""

import json
import os
import platform
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from tunesmith import owner
from tunesmith.errors import CheckpointError, RecipeError, Refusal
from tunesmith.owner import NAME, Owner, born, hold, leads, stop
from tunesmith.run import Data, Model, Run
from tunesmith.runs import claim

HERE = platform.node()


@pytest.fixture(params=["locks", "no locks"])
def any_system(request, monkeypatch):
    """A file system with locks, or without."""
    if request.param == "no locks":
        monkeypatch.setattr(owner, "fcntl", None)
    return request.param


def said_to_be(folder: Path, pid: int, started: float, host: str = HERE) -> None:
    folder.mkdir(exist_ok=True)
    (folder / NAME).write_text(json.dumps({"pid": pid, "born": started, "group": pid, "host": host}))


@contextmanager
def processes(code: str, count: int, **options):
    """Processes that run `code`, which has to print a line when it is ready and to read one when it is to go on."""
    code = f"import sys\nfrom tunesmith.owner import *\nfrom tunesmith.errors import *\n{code}"
    pipes = {name: subprocess.PIPE for name in ("stdin", "stdout", "stderr")}
    started = [subprocess.Popen([sys.executable, "-c", code], text=True, **pipes, **options) for _ in range(count)]
    try:
        for process in started:
            first = process.stdout.readline()
            if first != "ready\n":
                process.kill()
                raise AssertionError(first + process.stderr.read())
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


def go(started) -> list[str]:
    """Let all go on at once; what each printed in the end."""
    for process in started:
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.communicate(timeout=60) for process in started]
    assert [process.returncode for process in started] == [0] * len(started), said
    return [out for out, _ in said]


def test_never_two_at_once(tmp_path):
    """Four processes that take a run and let it go, as fast as they can: a file made by one is in nobody's way."""
    code = f"""
import time
folder, times = Path({str(tmp_path)!r}), 0
print("ready", flush=True), sys.stdin.readline()
until = time.monotonic() + 1
while time.monotonic() < until:
    try:
        with hold(folder, print):
            os.close(os.open(folder / "inside", os.O_CREAT | os.O_EXCL))
            time.sleep(0.001)
            (folder / "inside").unlink()
            times += 1
    except CheckpointError as refused:
        assert "runs it already" in str(refused)
print(times)
"""
    with processes(code, 4) as started:
        assert sum(map(int, go(started))) > 1
    assert not list(tmp_path.iterdir())


def test_of_two_that_start_at_once_in_one_folder_the_second_is_refused(tmp_path):
    code = """
from tunesmith.run import *
from tunesmith.runs import claim
import time
print("ready", flush=True), sys.stdin.readline()
try:
    with claim(Run(model=Model(path="m"), data=Data(path="d"), output="same"), "run", print) as folder:
        time.sleep(1.5)
        (folder.path / "run.json").write_text("{}")
        print("mine")
except RecipeError as refused:
    print(refused)
"""
    with processes(code, 3, cwd=tmp_path) as started:
        said = sorted(go(started))
    assert said[0] == "mine\n"
    assert all(
        line.startswith("same: process ") and "runs it already; wait, or end it with" in line for line in said[1:]
    )


def test_two_that_start_at_once_get_two_folders(tmp_path):
    code = """
from tunesmith.run import *
from tunesmith.runs import claim
print("ready", flush=True), sys.stdin.readline()
with claim(Run(model=Model(path="m"), data=Data(path="d")), "run", print) as folder:
    print(folder.path)
    (folder.path / "run.json").write_text("{}")
"""
    with processes(code, 4, cwd=tmp_path) as started:
        said = go(started)
    assert sorted(said) == ["runs/run\n", "runs/run-2\n", "runs/run-3\n", "runs/run-4\n"]


def test_a_folder_that_stays_empty_goes_again_and_one_that_is_taken_stays_as_it_was(tmp_path):
    run = Run(model=Model(path="m"), data=Data(path="d"), output=str(tmp_path / "run"))
    with pytest.raises(KeyError), claim(run, "run", print):
        raise KeyError
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").touch()
    with pytest.raises(RecipeError, match="holds something already"), claim(run, "run", print):
        pass
    assert [part.name for part in (tmp_path / "run").iterdir()] == ["mine.txt"]


HOLDS = """
with hold(Path({folder!r}), lambda _: None):
    {more}
    print("ready", flush=True)
    sys.stdin.readline()
"""


def test_a_killed_process_is_known_to_be_gone_and_its_run_is_taken_over(tmp_path, capsys):
    with processes(HOLDS.format(folder=str(tmp_path), more=""), 1) as [process]:
        known = owner.owner(tmp_path)
        assert (known.pid, known.process.pid) == (process.pid, process.pid)
        with pytest.raises(CheckpointError, match=rf"process {process.pid} on {HERE} runs it already"):
            hold(tmp_path, print).__enter__()
        process.kill()
        while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        assert known.process is None  # though nobody has asked for its exit code yet, and its pid is in use
        assert owner.owner(tmp_path) is None
        with hold(tmp_path, print):
            assert owner.owner(tmp_path).pid == os.getpid()
    assert f"process {process.pid} on {HERE} ran it and is gone; this process takes it over" in capsys.readouterr().out
    assert not (tmp_path / NAME).exists()


def test_a_pid_that_was_given_anew_is_another_process(tmp_path, capsys, any_system):
    parent = psutil.Process(os.getppid())
    said_to_be(tmp_path, parent.pid, born(parent) - 100)
    assert owner.owner(tmp_path) is None
    with hold(tmp_path, print):
        pass
    assert f"process {parent.pid} on {HERE} ran it and is gone" in capsys.readouterr().out


def test_without_locks_the_file_decides_and_that_is_said(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(owner, "fcntl", None)
    parent = psutil.Process(os.getppid())
    said_to_be(tmp_path, parent.pid, born(parent))
    assert owner.owner(tmp_path).pid == parent.pid
    with pytest.raises(CheckpointError, match=f"process {parent.pid} on {HERE} runs it already"):
        hold(tmp_path, print).__enter__()
    (tmp_path / NAME).unlink()
    with hold(tmp_path, print):
        assert owner.owner(tmp_path).pid == os.getpid()
    assert "this file system has no locks" in capsys.readouterr().out


def test_another_machine_is_left_alone(tmp_path, any_system):
    said_to_be(tmp_path, 1, 0.0, host="elsewhere")
    with pytest.raises(
        CheckpointError, match=rf"process 1 on elsewhere runs it, and this is {HERE}; .* remove .*{NAME}"
    ):
        hold(tmp_path, print).__enter__()
    assert owner.owner(tmp_path).host == "elsewhere"
    with pytest.raises(CheckpointError, match=f"this is {HERE}; stop it there"):
        stop(tmp_path, 1)
    (tmp_path / NAME).unlink()
    with hold(tmp_path, print):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the start of a process does not follow the clock")
def test_a_clock_that_is_set_changes_nothing(monkeypatch):
    known = Owner(os.getppid(), born(psutil.Process(os.getppid())), 0, HERE)
    usual, before = psutil.boot_time(), psutil.Process(known.pid).create_time()
    monkeypatch.setattr(psutil._psplatform, "boot_time", lambda: usual + 3600)
    assert psutil.Process(known.pid).create_time() == pytest.approx(before + 3600)  # or there is nothing to withstand
    assert known.process is not None


def test_a_stop_reaches_what_the_run_has_started(tmp_path):
    more = "import subprocess; print(subprocess.Popen(['sleep', '60']).pid, file=sys.stderr)"
    with processes(HOLDS.format(folder=str(tmp_path), more=more), 1, process_group=0) as [process]:
        child = psutil.Process(int(process.stderr.readline()))
        known = owner.owner(tmp_path)
        assert leads(known, known.process)
        assert not leads(replace(known, group=child.pid), known.process)  # it did not begin that one
        stop(tmp_path, 10)
        assert process.wait(10) == -signal.SIGTERM
        child.wait(10)


def test_a_stop_spares_what_shares_the_group(tmp_path):
    with processes(HOLDS.format(folder=str(tmp_path), more=""), 1, process_group=0) as [process]:
        beside = subprocess.Popen(["sleep", "60"], process_group=process.pid)  # as in `tunesmith train | tee log`
        stop(tmp_path, 10)
        assert process.wait(10) == -signal.SIGTERM
        assert beside.poll() is None
        beside.kill()
        beside.wait()


def test_a_stop_spares_the_script_that_started_the_run(tmp_path):
    with processes(HOLDS.format(folder=str(tmp_path), more=""), 1) as [process]:
        assert owner.owner(tmp_path).group == os.getpgrp()
        stop(tmp_path, 10)  # or this process would be told to stop, too
        assert process.wait(10) == -signal.SIGTERM


def test_a_stop_never_reaches_a_pid_that_was_given_anew(tmp_path):
    """Even while somebody holds the run, such as a child that outlived it."""
    with processes("print('ready', flush=True); sys.stdin.readline()", 1) as [bystander], hold(tmp_path, print):
        said_to_be(tmp_path, bystander.pid, born(psutil.Process(bystander.pid)) - 100)
        with pytest.raises(CheckpointError, match="it is not seen from here"):
            stop(tmp_path, 1)
        assert bystander.poll() is None


def test_a_stop_that_is_asked_for_twice_is_told_once(tmp_path):
    """A second SIGTERM would end the run before it has saved."""
    more = "import signal; signal.signal(signal.SIGTERM, lambda *_: print('told', flush=True))"
    with processes(HOLDS.format(folder=str(tmp_path), more=more), 1) as [process]:
        for _ in range(2):
            with pytest.raises(Refusal, match=rf"still runs after 0.2 s; .* `kill -9 {process.pid}`"):
                stop(tmp_path, 0.2)
        assert go([process]) == ["told\n"]
    assert not list(tmp_path.iterdir())
    with processes(HOLDS.format(folder=str(tmp_path), more=more), 1) as [process]:
        (tmp_path / owner.TOLD).touch()
        process.kill()
        process.wait()
    with processes(HOLDS.format(folder=str(tmp_path), more=""), 1) as [process]:
        stop(tmp_path, 10)
        assert process.wait(10) == -signal.SIGTERM
