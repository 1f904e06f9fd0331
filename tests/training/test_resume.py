"""A run that was stopped and goes on ends in the same weights, bit for bit."""

import json
import os
import re
import signal

import pytest

from tunesmith.errors import BadEnvironment, CheckpointError, Diverged, RecipeError, Stopped
from tunesmith.methods.full import Full
from tunesmith.methods.lora import LoRA
from tunesmith.objectives.classify import Classify
from tunesmith.objectives.sft import SFT
from tunesmith.run import Data, Eval, Model, Run, Train
from tunesmith.runs import RunFolder
from tunesmith.training import checkpoint
from tunesmith.training.train import resume, train

METHODS = {"full": Full(), "lora": LoRA(r=4, lora_dropout=0.1)}


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

    import safetensors.torch

    def full(tensors, file, *_):
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
