"""Any transformers.TrainerCallback sees what it would see under transformers' own Trainer."""

from dataclasses import replace

import pytest
from training.test_resume import run_of

from tunesmith.methods.lora import LoRA
from tunesmith.objectives.sft import SFT
from tunesmith.runs import RunFolder
from tunesmith.training.train import train


def recorder():
    from transformers import TrainerCallback

    class Recorder(TrainerCallback):
        def __init__(self):
            self.events, self.logs = [], []

        def __getattribute__(self, name):
            if name.startswith("on_") and name != "on_log":
                events = object.__getattribute__(self, "events")
                return lambda args, state, control, **facts: events.append((name, state.global_step, sorted(facts)))
            return object.__getattribute__(self, name)

        def on_log(self, args, state, control, logs=None, **facts):
            self.logs.append((state.global_step, logs))

    return Recorder()


def test_events_come_in_the_trainers_order(model_folder, reviews, tmp_path):
    seen = recorder()
    run = run_of(model_folder, reviews, tmp_path / "run", LoRA(), SFT(), max_steps=2, logging_steps=1, save_steps=2)
    train(run, [seen], quiet=True)
    names = [name for name, _, _ in seen.events]
    step = ["on_step_begin", "on_pre_optimizer_step", "on_optimizer_step", "on_step_end"]
    assert names == [
        "on_init_end", "on_train_begin", "on_epoch_begin", *step, *step, "on_save", "on_epoch_end", "on_train_end",
    ]  # fmt: skip
    assert {"model", "optimizer", "lr_scheduler", "processing_class"} <= set(seen.events[1][2])
    assert [number for number, _ in seen.logs] == [1, 2]
    assert {"loss", "grad_norm", "learning_rate", "epoch"} <= seen.logs[0][1].keys()


def test_a_callback_may_stop_the_run(model_folder, reviews, tmp_path):
    from transformers import TrainerCallback

    class Enough(TrainerCallback):
        def on_step_end(self, args, state, control, **facts):
            control.should_training_stop = state.global_step == 2
            control.should_evaluate = True  # on no row, which is no reason to fail

    run = run_of(model_folder, reviews, tmp_path / "run", LoRA(), SFT())
    train(replace(run, data=replace(run.data, eval_size=0.0)), [Enough()], quiet=True)
    assert (tmp_path / "run" / "adapter").is_dir()
    assert RunFolder(tmp_path / "run").facts["result"]["train_seconds"] > 0
    assert not (tmp_path / "run" / "checkpoints" / "step-00000006").exists()


def test_swanlabs_own_callback_is_written_to_offline(model_folder, reviews, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    swanlab = pytest.importorskip("swanlab", reason="an extra: pip install 'tunesmith[swanlab]'")
    from swanlab.integration.transformers import SwanLabCallback

    callback = SwanLabCallback(project="tunesmith-test", mode="offline", log_dir=str(tmp_path / "swanlog"))
    train(run_of(model_folder, reviews, tmp_path / "run", LoRA(), SFT(), logging_steps=2), [callback], quiet=True)
    swanlab.finish()
    assert any(file.is_file() and file.stat().st_size for file in (tmp_path / "swanlog").rglob("*"))
