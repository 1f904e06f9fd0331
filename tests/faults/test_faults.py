"""A real run in processes of its own, to which things happen; more rounds by `tunesmith faults RECIPE --rounds N`."""

import json
import os
import subprocess
import sys

import pytest

from tunesmith.runs import RunFolder

ALONE = os.environ | {"OMP_NUM_THREADS": "1"}


def settings(model_folder, reviews) -> list[str]:
    return [
        f"model.path={model_folder}", f"data.path={reviews}", "data.format.name=template", "method.lora_dropout=0.1",
        "train.per_device_train_batch_size=4", "eval.enabled=false",
    ]  # fmt: skip


@pytest.mark.skipif(not hasattr(os, "fork"), reason="attempts are forked")
def test_killed_stopped_and_spoilt_at_random_a_run_ends_as_if_nothing_had_been(ready, model_folder, reviews, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"model:\n  path: {model_folder}\ndata:\n  path: {reviews}\n")
    more = "train.max_steps=30", "train.save_steps=2", "train.save_total_limit=3"
    asked = ["faults", recipe, *settings(model_folder, reviews), *more, "--rounds=6", "--seed=1", "--json"]
    code, said = ready.run(*asked, log=tmp_path / "log")
    assert code == 0, said
    report = json.loads(said)
    assert (report["rounds"], report["survived"], report["lost"]) == (6, 6, {})
    assert len(report["tried"]) >= 5


TWICE = """
import sys
from tunesmith.cli import main
for words in (sys.argv[1:], ["train", "--resume", sys.argv[-1].removeprefix("output=")]):
    try:
        main(words)
    except SystemExit as left:
        if left.code:
            raise
"""


def test_a_strange_environment_changes_nothing(ready, model_folder, reviews, tmp_path):
    """No HOME, no TMPDIR, the C locale, and spaces and other scripts in every path."""
    begin = ["train", *settings(model_folder, reviews), "train.max_steps=3"]
    code, said = ready.run(*begin, f"output={tmp_path / 'usual'}", log=tmp_path / "log")
    assert code == 0, said
    room = tmp_path / "mit Leerzeichen 和 中文"
    room.mkdir()
    odd = {name: value for name, value in ALONE.items() if name not in ("HOME", "PYTHONUTF8", "PYTHONIOENCODING")}
    odd |= {"TMPDIR": str(tmp_path / "nowhere"), "LC_ALL": "C", "LANG": "C"}
    paths = model_folder.rename(room / "模型 1"), reviews.rename(room / "评论.jsonl")
    asked = ["train", *settings(*paths), "train.max_steps=3", f"output={room / 'lauf 1'}"]
    done = subprocess.run([sys.executable, "-c", TWICE, *asked], capture_output=True, text=True, env=odd)
    assert done.returncode == 0 and "is finished" in done.stderr.splitlines()[-1], done.stderr
    one, other = (folder / "adapter/adapter_model.safetensors" for folder in (tmp_path / "usual", room / "lauf 1"))
    assert one.read_bytes() == other.read_bytes()


def test_a_folder_that_cannot_be_written_is_one_sentence(ready, model_folder, reviews, tmp_path):
    (tmp_path / "file").write_text("no folder")
    words = ["train", *settings(model_folder, reviews), f"output={tmp_path / 'file' / 'run'}"]
    code, said = ready.run(*words, log=tmp_path / "log")
    assert code == 2, said
    assert said.splitlines()[-1].startswith(f"tunesmith: output: {tmp_path / 'file' / 'run'} cannot be made")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit on memory is Linux's")
def test_memory_that_ends_is_one_sentence_and_nothing_of_the_run_is_lost(ready, model_folder, reviews, tmp_path):
    """The limit is set once the run has begun, so that it is a step that does not fit."""
    program = (
        "import resource\n"
        "from tunesmith.cli import main\n"
        "from tunesmith.training.loop import Loop\n"
        "summed = Loop.summed\n"
        "def short(self, number):\n"
        "    if number == 2:\n"
        "        used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "        resource.setrlimit(resource.RLIMIT_AS, (used, used))\n"
        "        import torch\n"
        "        torch.empty(2**28).fill_(0)\n"  # a step of this model is too small to fail by itself
        "    return summed(self, number)\n"
        "Loop.summed = short\n"
        "main({words!r})\n"
    )
    words = ["train", *settings(model_folder, reviews), "train.max_steps=4", "train.save_steps=1"]
    words += [f"output={tmp_path / 'run'}"]
    done = subprocess.run(
        [sys.executable, "-c", program.format(words=words)], capture_output=True, text=True, env=ALONE
    )
    assert done.returncode == 4, done.stderr
    assert done.stderr.splitlines()[-1].startswith("tunesmith: out of memory: make a batch smaller")
    assert RunFolder(tmp_path / "run").facts["status"] == "outofmemory"
    code, said = ready.run("train", "--resume", tmp_path / "run", log=tmp_path / "log")
    assert code == 0 and "going on after step 2" in said, said
