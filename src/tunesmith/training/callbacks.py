"""Any transformers.TrainerCallback, called as transformers' own Trainer would."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config.load import dump
from ..run import Train

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from .loop import Loop


class Callbacks:
    """The callbacks of a run, and what they asked for. Without any, every call is nothing.

    Made before the Accelerator: transformers.TrainingArguments resets accelerate's state once, when it is built.
    """

    def __init__(self, callbacks: Sequence[TrainerCallback], train: Train, folder: Path) -> None:
        self.callbacks = list(callbacks)
        self.made_of: dict[str, Any] = {}
        if not self.callbacks:
            return
        from transformers import TrainerControl, TrainerState

        self.args, self.state, self.control = arguments(train, folder), TrainerState(), TrainerControl()
        self.call("on_init_end")

    def begin(self, loop: Loop, tokenizer, start: int) -> None:
        """Show the callbacks what the run is made of."""
        if not self.callbacks:
            return
        self.made_of = {
            "model": loop.policy.model,
            "processing_class": tokenizer,
            "optimizer": loop.optimizer,
            "lr_scheduler": loop.scheduler,
            "train_dataloader": None,
            "eval_dataloader": None,
        }
        self.state.max_steps, self.state.num_train_epochs = loop.order.total, loop.order.epochs
        self.state.logging_steps, self.state.save_steps = loop.train.logging_steps, loop.train.save_steps
        self.state.train_batch_size = loop.train.per_device_train_batch_size
        self.at(start, start / loop.order.epoch_steps)
        self.call("on_train_begin")

    def call(self, event: str, **facts: Any) -> None:
        """Tell every callback of an event; on_log comes with `logs`, on_evaluate with `metrics`."""
        for callback in self.callbacks:
            control = getattr(callback, event)(self.args, self.state, self.control, **self.made_of, **facts)
            self.control = control or self.control

    def at(self, step: int, epoch: float) -> None:
        """Say how far the run is, before the events of a step's end."""
        if self.callbacks:
            self.state.global_step, self.state.epoch = step, epoch

    def log(self, figures: dict[str, float]) -> None:
        if self.callbacks:
            self.state.log_history.append(figures | {"step": self.state.global_step})
            self.call("on_log", logs=figures)

    def asked(self, wish: str) -> bool:
        """Whether a callback set control.should_<wish>; asking takes the wish back, but for training_stop."""
        if not self.callbacks:
            return False
        wanted = getattr(self.control, f"should_{wish}")
        if wish != "training_stop":
            setattr(self.control, f"should_{wish}", False)
        return wanted


def arguments(train: Train, folder: Path):
    """What callbacks expect as `args`: the same names with the same values."""
    from transformers import TrainingArguments

    known = {field.name for field in fields(TrainingArguments)}
    shared = {field.name: getattr(train, field.name) for field in fields(train) if field.name in known}  # pyright: ignore[reportArgumentType]: record() makes it a dataclass
    renamed = {"report_to": "none", "activation_checkpointing": shared.pop("gradient_checkpointing")} | chosen(train)
    return TrainingArguments(output_dir=str(folder), **(shared | renamed))


def chosen(train: Train) -> dict[str, Any]:
    """Optimizer and schedule by name and options, as TrainingArguments has them; what it has not is AdamW to it."""
    from transformers.training_args import OptimizerNames

    optim, options = dump(train.optim), dump(train.lr_scheduler_type)
    name, schedule = optim.pop("name"), options.pop("name")
    known = name in {one.value for one in OptimizerNames}
    return {
        "optim": name if known else "adamw_torch",
        "optim_args": ",".join(f"{key}={value}" for key, value in optim.items()) or None,
        "lr_scheduler_type": schedule,
        "lr_scheduler_kwargs": options or None,
    }
