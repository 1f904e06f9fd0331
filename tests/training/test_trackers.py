"""What is told to a tracker stands in its store; one that fails, hangs or is not there holds no run up."""

import json
import os
import platform
import struct
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from training.test_resume import StopsAfter, run_of

from tunesmith import follower as following
from tunesmith.errors import BadEnvironment, RecipeError, Stopped
from tunesmith.follower import Follower
from tunesmith.methods.lora import LoRA
from tunesmith.objectives.sft import SFT
from tunesmith.runs import RunFolder
from tunesmith.trackers._work import Told
from tunesmith.trackers.base import tracker
from tunesmith.training import watched
from tunesmith.training.train import resume, train
from tunesmith.training.watched import settings

ID, KEY = "0123456789abcdef01234567", "not-to-be-seen-0f3c9a"
QUIET = 300
"""Seconds: another process may have all of this machine."""


def records(file: Path, begin: int):
    """The records of a log as LevelDB writes it: blocks of 32 kB, a header of seven bytes before each part."""
    content, at, parts = file.read_bytes(), begin, b""
    while at + 7 <= len(content):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + 7])
        parts += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def of_tensorboard(place, project):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(place / "tensorboard")).Reload()
    recipe = events.Tensors("recipe/text_summary")[0].tensor_proto.string_val[0].decode()
    tags = events.Tags()["scalars"]
    return {tag: [(one.step, one.value) for one in events.Scalars(tag)] for tag in tags}, recipe


def of_wandb(place, project):
    from wandb.proto import wandb_internal_pb2 as pb

    found, config = {}, ""
    for file in sorted(place.glob("wandb/offline-run-*/*.wandb")):
        for raw in records(file, 7):
            record = pb.Record.FromString(raw)
            if record.HasField("run"):
                assert (record.run.run_id, record.run.project) == (ID, project)
                config += str(record.run.config)
            if record.HasField("history"):
                items = {one.key or one.nested_key[0]: json.loads(one.value_json) for one in record.history.item}
                step = record.history.step.num
                for name in items.keys() - {"_step", "_timestamp", "_runtime"}:
                    found.setdefault(name, []).append((step, items[name]))
    return found, config


def of_swanlab(place, project):
    from swanlab.proto.swanlab.record.v1 import record_pb2
    from swanlab.sdk.internal.core_python.store import DataStoreReader

    found, ended = {}, 0
    for file in sorted(place.glob("swanlog/*/*.swanlab")):
        reader = DataStoreReader()
        reader.open(file)
        for raw in reader:
            record = record_pb2.Record.FromString(raw)
            ended += record.HasField("finish")
            assert not record.HasField("start") or record.start.project == project
            for scalar in [record.scalar] if record.HasField("scalar") else []:
                found.setdefault(scalar.key, []).append((scalar.step, scalar.value.number))
    configs = [file.read_text() for file in place.glob("swanlog/*/files/config.yaml")]
    assert ended == len(configs)
    return found, configs[0]


def of_mlflow(place, project):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{place}/mlflow.db")
    [run] = client.search_runs([client.get_experiment_by_name(project).experiment_id])
    assert run.info.status == "FINISHED" and "mlflow.source.name" not in run.data.tags
    found = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
    return {name: [(one.step, one.value) for one in each] for name, each in found.items()}, str(run.data.params)


def of_trackio(place, project):
    import sqlite3

    [file] = place.glob(f"trackio/{project}*.db")
    rows = sqlite3.connect(file).execute("select step, metrics from metrics order by id").fetchall()
    found = {}
    for step, metrics in rows:
        for name, value in json.loads(metrics).items():
            found.setdefault(name, []).append((step, value))
    config = sqlite3.connect(file).execute("select config from configs").fetchall()
    assert len(config) == 1
    return found, str(config)


READ = {name.removeprefix("of_"): read for name, read in list(globals().items()) if name.startswith("of_")}


def told(place, name, lines, ending, **options) -> list[str]:
    """Tell a tracker's process of a run; what failed."""
    faults: list[str] = []
    follower = Follower("tunesmith.trackers", faults.append)
    about = {"id": ID, "run": "my run", "folder": str(place), "settings": {"train.learning_rate": 0.25}}
    follower.tell(about | {"name": name, "options": options})
    for line in lines:
        follower.tell(line)
    assert follower.end({"ending": ending}, QUIET)
    return faults


def test_there_is_a_reader_for_every_tracker():
    assert READ.keys() == tracker.all().keys()


@pytest.mark.parametrize("name", READ)
@pytest.mark.filterwarnings("ignore")
def test_what_is_told_is_read_back_once_and_nothing_else_is(name, tmp_path, monkeypatch):
    if (spec := find_spec(name)) is None or spec.origin is None:
        pytest.skip(f"an extra: pip install 'tunesmith[{name}]'")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOME_API_KEY", KEY), monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    for variable in ("WANDB_MODE", "WANDB_API_KEY", "SWANLAB_MODE", "SWANLAB_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    place = tmp_path / "run"
    place.mkdir()
    options = {"project": "elsewhere"} if name != "tensorboard" else {}
    first = [{"step": 1, "loss": 0.5, "machine/cpu_percent": 7.0}, {"step": 2, "loss": 0.25}]
    first.append({"step": 2, "eval_loss": 2.0})
    assert told(place, name, first, "stopped", **options) == []
    # after a kill the steps since the checkpoint are taken, and told, again
    again = [*first[1:], {"step": 3, "loss": 0.125}, {"step": 3, "after/accuracy": 1.0}]
    assert told(place, name, again, "finished", **options) == []
    where = tmp_path if name in ("mlflow", "trackio") else place
    found, config = READ[name](where, "elsewhere")
    assert found == {
        "train/loss": [(1, 0.5), (2, 0.25), (3, 0.125)],
        "eval/loss": [(2, 2.0)],
        "machine/cpu_percent": [(1, 7.0)],
        "after/accuracy": [(3, 1.0)],
    }
    assert "train.learning_rate" in config and "0.25" in config
    kept = b"".join(file.read_bytes() for file in place.rglob("*") if file.is_file() and "debug" not in file.name)
    words = [word for word in sys.argv[1:] if "/" in word]  # one such as -k wandb says no more than its store does
    hidden = [KEY, *words, "tunesmith.trackers", os.environ.get("PYTHONPATH") or KEY]
    hidden += [] if name == "tensorboard" else [platform.node() if len(platform.node()) > 4 else KEY]
    assert not [text for text in hidden if len(text) > 8 and text.encode() in kept]


def test_a_run_that_goes_on_is_one_run_of_its_tracker(model_folder, reviews, tmp_path):
    chosen = (tracker["tensorboard"](),)
    run = run_of(model_folder, reviews, tmp_path / "run", LoRA(r=4), SFT(), logging_steps=1, report_to=chosen)
    with pytest.raises(Stopped):
        train(run, [StopsAfter(3)], quiet=True)
    known = RunFolder(tmp_path / "run").facts["tracked"]
    resume(tmp_path / "run", quiet=True)
    run = RunFolder(tmp_path / "run")
    assert run.facts["tracked"] == known
    found, recipe = of_tensorboard(tmp_path / "run", "")
    assert dict(found["train/loss"]) == pytest.approx({line["step"]: line["loss"] for line in run.metrics})
    assert len(found["train/loss"]) == 6
    last = run.metrics[-1]
    for name in ("cpu_percent", "memory_percent", "process_cpu_percent", "disk_free_gb", "process_memory_mb"):
        assert found[f"machine/{name}"][-1] == (6, pytest.approx(last[f"machine/{name}"])), name
    assert 0 <= last["machine/memory_percent"] <= 100 and last["machine/process_memory_mb"] > 50
    assert last["machine/disk_free_gb"] > 0
    assert "data.path: reviews.jsonl" in recipe and str(tmp_path) not in recipe


def test_a_tracker_that_fails_is_said_once_and_training_goes_on(model_folder, reviews, tmp_path, caplog):
    """Its files cannot be written, since a file stands where their folder should."""
    chosen = (tracker["tensorboard"](),)
    run = run_of(model_folder, reviews, tmp_path / "run", LoRA(), SFT(), logging_steps=1, report_to=chosen)

    def in_the_way():
        from transformers import TrainerCallback

        class InTheWay(TrainerCallback):
            def on_init_end(self, *_, **__):
                (tmp_path / "run" / "tensorboard").touch()

        return InTheWay()

    with caplog.at_level("WARNING", "tunesmith"):
        train(run, [in_the_way()], quiet=True)
    [said] = [record.getMessage() for record in caplog.records if "report_to" in record.getMessage()]
    assert said.startswith("train.report_to: tensorboard failed (") and said.endswith("training goes on without it")
    assert len(RunFolder(tmp_path / "run").metrics) == 6


HANGS = "import sys, time\nfor line in sys.stdin:\n    time.sleep(600)\n"
DIES = "import os, sys\nsys.stdin.readline()\nos._exit(3)\n"


def test_one_who_hangs_or_dies_holds_nobody_up(tmp_path, monkeypatch):
    (tmp_path / "hangs.py").write_text(HANGS), (tmp_path / "dies.py").write_text(DIES)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setattr(following, "MOST", 5000)
    faults: list[str] = []
    hanging = Follower("hangs", faults.append)
    began = time.perf_counter()
    for step in range(4000):
        hanging.tell({"step": step, "loss": 0.5, "more": "x" * 100})
    assert time.perf_counter() - began < 3
    assert not hanging.end({"ending": "finished"}, 0.5) and faults == []
    hanging.process.kill(), hanging.process.wait(), hanging.threads[1].join()
    assert len(faults) == 1  # by the reader; nothing more is said
    dying = Follower("dies", faults.append)
    dying.tell({"step": 1})
    assert dying.end({"ending": "finished"}, QUIET)
    assert faults[1:] == ["its process ended with status 3"]
    monkeypatch.setattr(watched, "PATIENCE", 2.0)
    said, several = [], {name: Follower("hangs", faults.append) for name in ("one", "two", "three")}
    began = time.perf_counter()
    watched.Watched(None, None, said.append, several).end("finished", "", {})
    assert 2 <= time.perf_counter() - began < 4 and "one, two, three has not taken in all yet" in said[0]
    for follower in several.values():
        follower.process.kill(), follower.process.wait(), follower.threads[1].join()


def test_how_far_a_tracker_was_told_is_replaced_as_a_whole(tmp_path):
    file = tmp_path / "trackers" / "wandb.json"
    told = Told(file)
    told.keep({"step": 3, "loss": 0.5})
    os.link(file, tmp_path / "before")
    told.keep({"step": 4, "loss": 0.5})
    assert json.loads((tmp_path / "before").read_text()) == {"loss": 3} and len(list(file.parent.iterdir())) == 1
    assert not Told(file).new({"step": 4, "loss": 0.25}) and Told(file).new({"step": 4, "eval_loss": 0.25})
    file.write_bytes(b"")  # as a power cut leaves it
    assert Told(file).new({"step": 4, "loss": 0.25})


def test_a_tracker_knows_names_and_no_paths(model_folder, reviews, tmp_path, monkeypatch):
    from dataclasses import replace

    run = run_of(model_folder, reviews, tmp_path / "run", LoRA(target_modules=("q_proj",)), SFT())
    run = replace(run, data=replace(run.data, eval_path="some/rows/*.jsonl"))
    found = settings(run)
    assert (found["model.path"], found["data.path"]) == (model_folder.name, reviews.name)
    assert (found["data.eval_path"], found["method"], found["method.r"]) == ("*.jsonl", "lora", 8)
    assert found["method.target_modules"] == ["q_proj"] and "output" not in found
    hub = replace(run, model=replace(run.model, path="org/model"))
    assert settings(hub)["model.path"] == "org/model"


def test_a_missing_tracker_is_refused_by_a_sentence(model_folder, reviews, tmp_path, monkeypatch):
    name = next((name for name in tracker.all() if find_spec(name) is None), None)
    if name is None:
        pytest.skip("all trackers are installed")
    chosen = (tracker[name](),)
    said = rf"train.report_to: {name} is not installed; pip install 'tunesmith\[{name}\]'"
    with pytest.raises(BadEnvironment, match=said):
        train(run_of(model_folder, reviews, tmp_path / "run", LoRA(), SFT(), report_to=chosen), quiet=True)
    twice = (tracker["tensorboard"](), tracker["tensorboard"]())
    with pytest.raises(RecipeError, match="names one twice"):
        train(run_of(model_folder, reviews, tmp_path / "run", LoRA(), SFT(), report_to=twice), quiet=True)


def test_a_run_that_is_killed_leaves_nobody_behind(tmp_path):
    """The process ends by itself once the run is gone, and has kept what it was told."""
    code = (
        "import os, sys, time\nfrom tunesmith.follower import Follower\n"
        "follower = Follower('tunesmith.trackers', print)\n"
        f"follower.tell({{'id': '{ID}', 'run': 'r', 'folder': sys.argv[1], 'settings': {{}}, 'name': 'tensorboard',"
        " 'options': {}})\n"
        "follower.tell({'step': 1, 'loss': 0.5})\n"
        "while follower.lines.qsize(): time.sleep(0.01)\n"
        "time.sleep(0.3)\nprint(follower.process.pid, flush=True)\nos.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    pid, until = int(done.stdout), time.monotonic() + QUIET
    import psutil

    def goes_on() -> bool:
        try:
            return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    while goes_on() and time.monotonic() < until:
        time.sleep(0.1)
    assert not goes_on()
    assert of_tensorboard(tmp_path, "")[0]["train/loss"] == [(1, 0.5)]
