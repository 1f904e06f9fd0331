"""What may be done to a run that is going on, that was stopped, that died: list, stop, resume, rm."""

import json
import signal
import subprocess
import sys
import time

import pytest

from tunesmith.cli import main


@pytest.fixture
def ask(capsys):
    """Run a command; its exit code, what it printed and what it said."""

    def run(*words) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main([*map(str, words)])
        return left.value.code or 0, *capsys.readouterr()

    return run


@pytest.fixture
def words(model_folder, reviews, tmp_path):
    return [
        "train", f"model.path={model_folder}", f"data.path={reviews}", f"output={tmp_path / 'run'}",
        "data.format.name=template", "train.max_steps=100", "eval.enabled=false", "train.logging_steps=1",
        "train.save_strategy=steps", "train.save_steps=10",
    ]  # fmt: skip


@pytest.fixture
def going(words, tmp_path):
    """A run in a process of its own that is held up after twenty steps, for as long as a test looks at it."""
    folder, metrics = tmp_path / "run", tmp_path / "run" / "metrics.jsonl"
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen([sys.executable, "-m", "tunesmith", *words], stderr=said)
    while process.poll() is None and not (metrics.exists() and len(metrics.read_text().splitlines()) > 20):
        time.sleep(0.01)
    process.send_signal(signal.SIGSTOP)
    yield folder, process
    process.kill()
    process.wait()


def status(ask, folder) -> str:
    [row] = json.loads(ask("runs", "list", folder.parent, "--json")[1])
    assert json.loads(ask("runs", "show", folder, "--json")[1])["status"] == row["status"]
    return row["status"]


def files(folder):
    return {file.relative_to(folder): file.stat().st_mtime_ns for file in folder.rglob("*")}


def test_a_run_is_one_process_s_until_it_is_stopped(ask, going, words, tmp_path):
    folder, process = going
    before = files(folder)
    for refused, code in ((words, 2), (["train", "--resume", folder], 7), (["runs", "rm", folder], 7)):
        left, _, said = ask(*refused)
        assert (left, f"{folder}: process {process.pid} on " in said, "runs it already" in said) == (code, True, True)
    assert files(folder) == before
    assert status(ask, folder) == "running"
    process.send_signal(signal.SIGCONT)
    code, said, _ = ask("runs", "stop", folder)
    assert (code, f"and saved; go on with: tunesmith train --resume {folder}" in said) == (0, True)
    assert process.wait(60) == 75
    assert status(ask, folder) == "stopped"
    assert "does not run; its status is stopped" in ask("runs", "stop", folder)[1]
    told = json.loads(ask("runs", "stop", folder, "--json")[1])
    assert (told.pop("reason")[:13], told) == ("stopped after", {"run": str(folder), "ran": False, "status": "stopped"})

    code, said, _ = ask("runs", "resume", folder, "--json")
    assert (code, json.loads(said)["run"]) == (0, str(folder))
    steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 101))

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "keep.txt").touch()
    (folder / "link").symlink_to(tmp_path / "mine")
    (tmp_path / "latest").symlink_to(folder)
    code, _, said = ask("runs", "rm", tmp_path / "latest")
    assert (code, "is a link" in said, folder.exists()) == (7, True, True)
    code, said, _ = ask("runs", "rm", folder)
    assert (code, said.startswith(f"removed {folder}: "), folder.exists()) == (0, True, False)
    assert float(said.split()[-3]) > 0
    assert (tmp_path / "mine" / "keep.txt").exists()


def test_a_run_that_was_killed_has_died_and_can_be_resumed(ask, going):
    folder, process = going
    process.kill()
    process.wait()
    assert status(ask, folder) == "died"
    code, said, _ = ask("runs", "stop", folder)
    assert (code, "does not run; its status is died" in said) == (0, True)
    told = json.loads(ask("runs", "stop", folder, "--json")[1])
    assert told == {"run": str(folder), "ran": False, "status": "died", "reason": ""}
    code, _, said = ask("train", "--resume", folder)
    assert code == 0
    assert f"process {process.pid} on " in said
    assert "ran it and is gone; this process takes it over" in said
    assert status(ask, folder) == "finished"
    code, said, _ = ask("runs", "rm", folder, "--json")
    told = json.loads(said)
    assert (code, told["run"], told["bytes"] > 0, folder.exists()) == (0, str(folder), True, False)


@pytest.mark.parametrize("missing", ["run.json", "recipe.yaml"])
def test_what_is_no_run_is_not_removed(ask, tmp_path, missing):
    for name in {"run.json", "recipe.yaml"} - {missing}:
        (tmp_path / name).write_text("{}")
    (tmp_path / "mine.txt").touch()
    code, _, said = ask("runs", "rm", tmp_path)
    assert (code, f"is no run folder: it has no {missing}" in said) == (7, True)
    assert (tmp_path / "mine.txt").exists()
