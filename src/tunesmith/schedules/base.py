"""What a schedule is: the learning rate of each step, as a share of the peak."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, ClassVar

from ..config.registry import Registry

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LambdaLR

    from ..run import Train


class Schedule:
    """A schedule of transformers, whose name and options it has."""

    name: ClassVar[str]

    def refuse(self, train: Train) -> None:
        """Refuse what does not go together, before anything is read."""

    def options(self, warmup: int, total: int) -> dict[str, Any]:
        """What transformers is told, for a run of so many steps."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}  # pyright: ignore[reportArgumentType] - the registry makes it a record
        return {name: value for name, value in given.items() if value is not None}

    def make(self, optimizer: Optimizer, warmup: int, total: int) -> LambdaLR:
        """The learning rates, with so many steps of warmup."""
        from transformers import get_scheduler

        made: Any = get_scheduler(self.name, optimizer, warmup, total, self.options(warmup, total))
        return made


schedule: Registry[Schedule] = Registry("schedule", "tunesmith.schedules")
