"""A real disk, of a few hundred kilobytes, that is full or that cannot be written."""

import json
from pathlib import Path

import pytest
from faults.test_faults import settings

FILL = "cat /dev/zero > {disk}/ballast 2>/dev/null || true"
CLEAR = "rm {disk}/ballast"
ADAPTER = "adapter/adapter_model.safetensors"


@pytest.fixture
def disk(apart, tmp_path):
    """A file system of 4 MB; what stands in it is seen through the process that it was mounted by."""
    folder = tmp_path / "disk"
    folder.mkdir()
    apart.shell(f"mount -t tmpfs -o size=4m none '{folder}'")
    yield folder
    apart.shell(f"umount -l '{folder}'")


@pytest.fixture
def words(model_folder, reviews):
    more = ["train.max_steps=12", "train.save_steps=2", "train.save_total_limit=2", "train.logging_steps=1"]
    return ["train", *settings(model_folder, reviews), *more]


@pytest.fixture
def alone(apart, words, tmp_path):
    """The hash of what the run comes to where there is room enough."""
    code, said = apart.run(*words, f"output={tmp_path / 'alone'}", log=tmp_path / "log")
    assert code == 0, said
    return total(apart, tmp_path / "alone")


def total(apart, folder: Path) -> str:
    return apart.shell(f"sha256sum < '{folder / ADAPTER}'")


def meanwhile(disk: Path, fill: int, clear: int = 0) -> list[tuple[str, str]]:
    """The disk is full after one step, and has room again after another."""
    moments = [(f"said step {fill}/*", FILL.format(disk=disk))]
    return moments + ([(f"said step {clear}/*", CLEAR.format(disk=disk))] if clear else [])


def test_a_full_disk_is_survived_twice(apart, disk, words, alone, tmp_path):
    moments = meanwhile(disk, 3, 7)
    code, said = apart.run(*words, f"output={disk / 'run'}", log=tmp_path / "log", moments=moments)
    assert code == 0, said
    sentence = "could not be written (the disk is full); the last one is of step 2; training goes on"
    assert said.count(sentence) == 2, said
    assert total(apart, disk / "run") == alone
    kept = apart.shell(f"ls '{disk / 'run' / 'checkpoints'}'").split()
    assert kept == ["step-00000010", "step-00000012"]


def test_a_disk_that_stays_full_ends_the_run_which_can_go_on(apart, disk, words, alone, tmp_path):
    code, said = apart.run(*words, f"output={disk / 'run'}", log=tmp_path / "log", moments=meanwhile(disk, 3))
    assert code == 6, said
    assert "3 times in a row a checkpoint could not be written (the disk is full); the last one is of step 2" in said
    assert said.splitlines()[-1].endswith("Make room, then go on with --resume")
    assert apart.shell(f"ls -A '{disk / 'run' / 'checkpoints'}'").split() == ["step-00000002"]
    code, said = apart.run("train", "--resume", disk / "run", log=tmp_path / "log")
    assert code == 6 and said.splitlines()[-1].startswith("tunesmith: the disk is full"), said
    apart.shell(CLEAR.format(disk=disk))
    code, said = apart.run("train", "--resume", disk / "run", log=tmp_path / "log")
    assert code == 0 and "going on after step 2" in said, said
    assert total(apart, disk / "run") == alone


@pytest.mark.parametrize("place", ["there", "elsewhere"])
def test_logs_on_a_full_disk_end_nothing(apart, disk, words, tmp_path, place):
    """Neither the run's metrics nor what it says; of the metrics, every line is whole or not there."""
    words, log = [*words, "train.save_strategy=no", "train.max_steps=90"], tmp_path / "log"
    code, said = apart.run(*words, f"output={tmp_path / 'alone'}", log=log)
    assert code == 0, said
    log = disk / "log" if place == "there" else log
    code, said = apart.run(*words, f"output={disk / 'run'}", log=log, moments=meanwhile(disk, 3, 80))
    assert code == 0, said
    missing = "metrics.jsonl cannot be written (No space left on device); training goes on without"
    assert place == "there" or said.count(missing) == 1
    assert total(apart, disk / "run") == total(apart, tmp_path / "alone")
    lines = apart.shell(f"cat '{disk / 'run' / 'metrics.jsonl'}'").splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert steps == [*range(1, len(steps) - 10), *range(80, 91)] and len(steps) < 90


def test_a_read_only_file_system_is_one_sentence(apart, disk, words, tmp_path):
    moments = [("said step 4/*", "kill -TERM $PID")]
    code, said = apart.run(*words, f"output={disk / 'run'}", log=tmp_path / "log", moments=moments)
    assert code == 75, said
    apart.shell(f"mount -o remount,ro '{disk}'")
    code, said = apart.run(*words, f"output={disk / 'new'}", log=tmp_path / "log")
    assert (code, said) == (2, f"tunesmith: output: {disk / 'new'} cannot be made: Read-only file system\n")
    code, said = apart.run("train", "--resume", disk / "run", log=tmp_path / "log")
    assert (code, said) == (7, f"tunesmith: {disk / 'run'}: cannot be written into: Read-only file system\n")
