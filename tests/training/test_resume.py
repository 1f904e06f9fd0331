"""A run that was stopped and goes on ends in the same weights, bit for bit."""

import json
import os
import re
import shutil
import signal
from types import SimpleNamespace

import pytest

from tunesmith.errors import BadEnvironment, CheckpointError, Diverged, RecipeError, Stopped
from tunesmith.methods.full import Full
from tunesmith.methods.lora import LoRA
from tunesmith.objectives.classify import Classify
from tunesmith.objectives.sft import SFT
from tunesmith.run import Data, Eval, Model, Run, Train
from tunesmith.runs import RunFolder
from tunesmith.schedules.constant import Constant
from tunesmith.training import checkpoint
from tunesmith.training.train import resume, train

METHODS = {"full": Full(), "lora": LoRA(r=4, lora_dropout=0.1), "eva": LoRA(r=4, init_lora_weights="eva")}


def run_of(model_folder, reviews, output, method, objective, **settings):
    from tunesmith.data.formats.labelled import Labelled
    from tunesmith.data.formats.template import Template

    format_ = Labelled() if isinstance(objective, Classify) else Template(prompt="judge: {text}", answer="{label}")
    return Run(
        model=Model(path=str(model_folder)),
        data=Data(path=str(reviews), format=format_),
        method=method,
        objective=objective,
        train=Train(**{"max_steps": 6, "learning_rate": 1e-2, "per_device_train_batch_size": 4, **settings}),
        eval=Eval(enabled=False),
        output=str(output),
    )


def weights(folder):
    [file] = [*folder.glob("adapter/adapter_model.safetensors"), *folder.glob("model/model.safetensors")]
    return file.read_bytes()


class StopsAfter:
    """A callback that sends this process SIGTERM during a step."""

    def __new__(cls, step):
        from transformers import TrainerCallback

        class Stops(TrainerCallback):
            def on_step_begin(self, args, state, control, **kwargs):
                if state.global_step == step - 1:
                    os.kill(os.getpid(), signal.SIGTERM)

        return Stops()


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("objective", [SFT(), Classify()], ids=["sft", "classify"])
def test_stopped_and_resumed_equals_uninterrupted(model_folder, reviews, tmp_path, method, objective):
    train(run_of(model_folder, reviews, tmp_path / "whole", method, objective), quiet=True)
    stopped = run_of(model_folder, reviews, tmp_path / "parts", method, objective)
    with pytest.raises(Stopped, match=r"after step 3, and saved; go on with: tunesmith train --resume"):
        train(stopped, [StopsAfter(3)], quiet=True)
    assert RunFolder(tmp_path / "parts").facts["status"] == "stopped"
    resume(tmp_path / "parts", quiet=True)
    assert weights(tmp_path / "whole") == weights(tmp_path / "parts")
    assert RunFolder(tmp_path / "parts").metrics[-1]["step"] == 6


def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_taken(model_folder, reviews, tmp_path, capsys):
    train(run_of(model_folder, reviews, tmp_path / "whole", LoRA(), SFT()), quiet=True)
    parts = run_of(model_folder, reviews, tmp_path / "parts", LoRA(), SFT(), save_steps=2)
    with pytest.raises(Stopped):
        train(parts, [StopsAfter(5)], quiet=True)
    newest = tmp_path / "parts" / "checkpoints" / "step-00000005" / checkpoint.OPTIMIZER
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(content)
    resume(tmp_path / "parts")
    said = capsys.readouterr().err
    assert "step-00000005 is damaged" in said
    assert "going on after step 4" in said
    assert (tmp_path / "parts" / "checkpoints" / "damaged-step-00000005").is_dir()
    assert weights(tmp_path / "whole") == weights(tmp_path / "parts")


def test_changed_data_is_refused_on_resume(model_folder, reviews, tmp_path):
    with pytest.raises(Stopped):
        train(run_of(model_folder, reviews, tmp_path / "run", LoRA(), SFT()), [StopsAfter(2)], quiet=True)
    rows = [json.loads(line) for line in reviews.read_text().splitlines()]
    reviews.write_text("".join(json.dumps(row | {"text": row["text"] + "!"}) + "\n" for row in rows))
    with pytest.raises(CheckpointError, match="data has changed"):
        resume(tmp_path / "run", quiet=True)


def changed(folder, setting, value):
    """Edit the recipe of a run."""
    file = folder / "recipe.yaml"
    text, count = re.subn(rf"(?m)^(\s+{setting}:) [^#\n]*", rf"\1 {value} ", file.read_text())
    assert count == 1
    file.write_text(text)


def test_a_changed_recipe_is_refused_on_resume_or_applied_and_said(model_folder, reviews, tmp_path, capsys):
    with pytest.raises(Stopped):
        train(run_of(model_folder, reviews, tmp_path / "run", LoRA(), SFT()), [StopsAfter(2)], quiet=True)
    changed(tmp_path / "run", "seed", 7)
    changed(tmp_path / "run", "weight_decay", 0.5)
    with pytest.raises(
        CheckpointError, match=r"train.weight_decay has changed since \(was 0.0, is 0.5\); train.seed .*42"
    ):
        resume(tmp_path / "run", quiet=True)
    changed(tmp_path / "run", "seed", 42)
    changed(tmp_path / "run", "weight_decay", 0.0)
    changed(tmp_path / "run", "learning_rate", 0.001)
    changed(tmp_path / "run", "logging_steps", 1)
    resume(tmp_path / "run")
    said = capsys.readouterr().err
    assert "going on after step 2; train.learning_rate has changed since (was 0.01, is 0.001)" in said
    assert "logging_steps" not in said


def test_a_finished_run_says_so(model_folder, reviews, tmp_path, capsys):
    result = train(run_of(model_folder, reviews, tmp_path / "run", LoRA(), SFT()), quiet=True)
    assert resume(tmp_path / "run") == result
    assert "is finished" in capsys.readouterr().err


def test_a_taken_folder_is_not_written_into(model_folder, reviews, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("keep")
    with pytest.raises(RecipeError, match="holds something already"):
        train(run_of(model_folder, reviews, tmp_path / "run", LoRA(), SFT()), quiet=True)
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["mine.txt"]


def test_a_loss_that_is_no_number_stops_the_run_and_is_not_saved(model_folder, reviews, tmp_path):
    run = run_of(model_folder, reviews, tmp_path / "run", Full(), SFT(), learning_rate=1e30, max_grad_norm=0)
    with pytest.raises(Diverged, match="the step was not taken"):
        train(run, quiet=True)
    assert RunFolder(tmp_path / "run").facts["status"] == "diverged"
    assert not (tmp_path / "run" / "model").exists()


def test_a_full_disk_leaves_no_half_checkpoint(model_folder, reviews, tmp_path, monkeypatch):
    import errno

    import peft  # noqa: F401 - which would keep what is put in save_file's place if it were imported meanwhile
    import safetensors.torch

    def full(tensors, file, *_, **named):
        file.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device", str(file))

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(BadEnvironment, match="the disk is full"):
        train(run_of(model_folder, reviews, tmp_path / "run", LoRA(), SFT(), save_steps=2), quiet=True)
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []


def test_old_checkpoints_go_and_the_newest_stay(model_folder, reviews, tmp_path):
    train(run_of(model_folder, reviews, tmp_path / "run", LoRA(), SFT(), save_steps=1, save_total_limit=3), quiet=True)
    kept = [place.name for place in checkpoint.found(tmp_path / "run" / "checkpoints")]
    assert kept == ["step-00000004", "step-00000005", "step-00000006"]


def stopped_run(model_folder, reviews, folder, **settings):
    """A run with checkpoints of steps 2, 4 and 5."""
    run = run_of(model_folder, reviews, folder, LoRA(), SFT(), save_steps=2, save_total_limit=None, **settings)
    with pytest.raises(Stopped):
        train(run, [StopsAfter(5)], quiet=True)
    return folder / "checkpoints"


@pytest.mark.parametrize("name", [checkpoint.WEIGHTS, checkpoint.OPTIMIZER, checkpoint.RANDOM, checkpoint.MANIFEST])
@pytest.mark.parametrize("fault", ["cut", "flip", "gone", "empty"])
def test_no_damage_to_any_file_goes_unnoticed(tiny, tmp_path, name, fault):
    from tinyrun import loop_of, sequences_for

    loop = loop_of(tiny, LoRA(), SFT(), sequences_for(SFT()))
    checkpoint.write(tmp_path, 1, checkpoint.state(loop), {"seconds": 1.5}, None)
    place = checkpoint.write(tmp_path, 2, checkpoint.state(loop), {"seconds": 1.5}, None)
    file = place / name
    content = bytearray(file.read_bytes())
    for at in range(0, len(content), max(1, len(content) // 40)) if fault == "flip" else [0]:
        if fault == "flip":
            spoilt = bytearray(content)
            spoilt[at] ^= 1
            file.write_bytes(spoilt)
        elif fault == "gone":
            file.unlink()
        else:
            file.write_bytes(content[: len(content) // 2] if fault == "cut" else b"")
        assert checkpoint.damage(place), at
    said = []
    assert checkpoint.newest(tmp_path, said.append) == tmp_path / "step-00000001"
    assert len(said) == 1 and (tmp_path / "damaged-step-00000002").is_dir()


def test_empty_future_and_half_written_folders_are_set_aside_or_cleared(model_folder, reviews, tmp_path, capsys):
    train(run_of(model_folder, reviews, tmp_path / "whole", LoRA(), SFT()), quiet=True)
    places = stopped_run(model_folder, reviews, tmp_path / "run")
    (places / "step-00000099").mkdir()
    (places / ".step-00000006.abc.tmp").mkdir()
    (places / "step-00000005").rename(places / "step-00000777")
    (places / "damaged-step-00000777").mkdir()
    resume(tmp_path / "run")
    said = capsys.readouterr().err
    assert "step-00000777 is damaged" in said and "step-00000099 is damaged" in said and "after step 4" in said
    assert {"damaged-step-00000777", "damaged-step-00000777-2"} <= {place.name for place in places.iterdir()}
    assert not list(places.glob(".*"))
    assert weights(tmp_path / "whole") == weights(tmp_path / "run")


def test_where_no_checkpoint_can_be_used_nothing_begins_again_by_itself(model_folder, reviews, tmp_path):
    places = stopped_run(model_folder, reviews, tmp_path / "run")
    for place in checkpoint.found(places):
        (place / checkpoint.MANIFEST).unlink()
    for _ in range(2):
        with pytest.raises(CheckpointError, match="none of the 3 checkpoints can be used; they are kept"):
            resume(tmp_path / "run", quiet=True)
    assert len(list(places.glob("damaged-*"))) == 3


def test_a_full_disk_is_said_and_training_goes_on_until_the_third_time(
    model_folder, reviews, tmp_path, monkeypatch, capsys
):
    usage = shutil.disk_usage
    calls = []

    def room(folder):
        calls.append(folder)
        return usage(folder)._replace(free=10) if len(calls) in (2, 3, 5) else usage(folder)

    monkeypatch.setattr(checkpoint, "shutil", SimpleNamespace(disk_usage=room))
    train(run_of(model_folder, reviews, tmp_path / "run", LoRA(), SFT(), save_steps=1))
    said = capsys.readouterr().err
    assert said.count("could not be written (the disk is full); the last one is of step 1; training goes on") == 2
    assert said.count("the last one is of step 4; training goes on") == 1
    kept = [place.name for place in checkpoint.found(tmp_path / "run" / "checkpoints")]
    assert kept == ["step-00000004", "step-00000006"]


def test_a_stop_that_cannot_be_saved_does_not_say_that_it_was(model_folder, reviews, tmp_path, monkeypatch):
    usage = shutil.disk_usage
    no_room = SimpleNamespace(disk_usage=lambda folder: usage(folder)._replace(free=10))
    monkeypatch.setattr(checkpoint, "shutil", no_room)
    with pytest.raises(BadEnvironment, match="stopped after step 3, which could not be saved; there is no checkpoint"):
        train(run_of(model_folder, reviews, tmp_path / "run", LoRA(), SFT()), [StopsAfter(3)], quiet=True)


def test_metrics_that_cannot_be_written_are_said_once(model_folder, reviews, tmp_path, monkeypatch, capsys):
    def full(self, figures):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RunFolder, "log", full)
    train(run_of(model_folder, reviews, tmp_path / "run", LoRA(), SFT(), logging_steps=1))
    assert capsys.readouterr().err.count("metrics.jsonl cannot be written") == 1


def test_checkpoints_are_written_in_order_while_training_goes_on(tiny, tmp_path, monkeypatch):
    """The second waits for the first, which holds what the weights were when it was asked for."""
    import threading

    from safetensors.torch import load_file
    from tinyrun import loop_of, sequences_for

    loop = loop_of(tiny, LoRA(), SFT(), sequences_for(SFT()))
    go_on, done, write = threading.Event(), [], checkpoint.write

    def slow(folder, step, *rest):
        assert go_on.wait(20)
        done.append(step)
        return write(folder, step, *rest)

    monkeypatch.setattr(checkpoint, "write", slow)
    writer = checkpoint.Writer(tmp_path, None, lambda text: None)
    name, weight = next(iter(loop.weights.items()))
    before = weight.detach().clone()
    writer.save(loop, 1, {})
    with_torch = weight.detach().add_(1)
    assert done == [] and with_torch.data_ptr() == weight.data_ptr()
    go_on.set()
    writer.save(loop, 2, {})
    writer.wait()
    assert done == [1, 2] and writer.saved == 2
    first, second = (load_file(tmp_path / f"step-0000000{n}" / checkpoint.WEIGHTS)[name] for n in (1, 2))
    assert first.equal(before) and second.equal(before + 1)


def test_a_finished_run_goes_on_where_its_recipe_now_asks_for_more(model_folder, reviews, tmp_path):
    constant = {"lr_scheduler_type": Constant()}
    train(run_of(model_folder, reviews, tmp_path / "whole", LoRA(), SFT(), max_steps=8, **constant), quiet=True)
    train(run_of(model_folder, reviews, tmp_path / "run", LoRA(), SFT(), **constant), quiet=True)
    changed(tmp_path / "run", "max_steps", 8)
    resume(tmp_path / "run", quiet=True)
    assert RunFolder(tmp_path / "run").metrics[-1]["step"] == 8
    assert weights(tmp_path / "whole") == weights(tmp_path / "run")
    changed(tmp_path / "run", "max_steps", 7)
    with pytest.raises(CheckpointError, match="ends after step 7"):
        resume(tmp_path / "run", quiet=True)


def test_a_stop_in_a_step_after_which_is_measured_saves_and_does_not_measure(model_folder, reviews, tmp_path):
    often = {"eval_strategy": "steps", "eval_steps": 2}
    with pytest.raises(Stopped, match="after step 2"):
        train(run_of(model_folder, reviews, tmp_path / "run", LoRA(), SFT(), **often), [StopsAfter(2)], quiet=True)
    assert not [line for line in RunFolder(tmp_path / "run").metrics if "eval_loss" in line]


def test_a_run_that_a_clock_ended_goes_on_when_it_is_given_more_time(model_folder, reviews, tmp_path):
    train(run_of(model_folder, reviews, tmp_path / "whole", LoRA(), SFT()), quiet=True)
    train(run_of(model_folder, reviews, tmp_path / "run", LoRA(), SFT(), max_seconds=1e-9), quiet=True)
    assert RunFolder(tmp_path / "run").metrics[-1]["step"] == 1
    resume(tmp_path / "run", quiet=True)  # it is finished, and no step is taken
    assert RunFolder(tmp_path / "run").metrics[-1]["step"] == 1
    changed(tmp_path / "run", "max_seconds", 1e9)
    resume(tmp_path / "run", quiet=True)
    assert RunFolder(tmp_path / "run").metrics[-1]["step"] == 6
    assert weights(tmp_path / "whole") == weights(tmp_path / "run")


class StopsMeasuring:
    """A callback that sends SIGTERM while the held-out rows are measured."""

    def __new__(cls, monkeypatch):
        from tunesmith.evaluate.evaluate import Examiner

        loss = Examiner.loss

        def told(self, policy):
            os.kill(os.getpid(), signal.SIGTERM)
            return loss(self, policy)

        monkeypatch.setattr(Examiner, "loss", told)


def test_a_signal_while_measuring_gives_the_measure_up_and_saves(model_folder, reviews, tmp_path, monkeypatch):
    StopsMeasuring(monkeypatch)
    run = run_of(model_folder, reviews, tmp_path / "run", LoRA(), SFT(), eval_strategy="steps", eval_steps=3)
    with pytest.raises(Stopped, match="after step 3, and saved"):
        train(run, quiet=True)
    assert not any("eval_loss" in line for line in RunFolder(tmp_path / "run").metrics)


@pytest.mark.parametrize("phase", ["load_model", "measure", "save_tuned"])
def test_a_signal_in_any_phase_ends_the_run_so_that_it_can_go_on(model_folder, reviews, tmp_path, monkeypatch, phase):
    from tunesmith.errors import Interrupted
    from tunesmith.training import train as line

    train(run_of(model_folder, reviews, tmp_path / "whole", LoRA(), SFT()), quiet=True)
    original = getattr(line, phase)

    def told(*args, **named):
        os.kill(os.getpid(), signal.SIGTERM)
        return original(*args, **named)

    monkeypatch.setattr(line, phase, told)
    expected = Interrupted if phase == "load_model" else Stopped
    with pytest.raises(expected, match="stopped by SIGTERM; (there was nothing to save|nothing is lost; go on with)"):
        train(run_of(model_folder, reviews, tmp_path / "run", LoRA(), SFT()), quiet=True)
    monkeypatch.setattr(line, phase, original)
    if expected is Interrupted:
        assert not (tmp_path / "run").exists()
        return
    resume(tmp_path / "run", quiet=True)
    assert weights(tmp_path / "whole") == weights(tmp_path / "run")
