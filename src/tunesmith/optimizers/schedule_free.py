"""Optimizers that need no schedule, by the package of their authors."""

from contextlib import contextmanager
from typing import Any

from ..config.record import Beta, NonNegative, record
from ..errors import RecipeError
from .base import Optim, adams, groups, optimizer


@record
class ScheduleFree(Optim):
    """Weights that are averaged as training goes on; the average is what a run measures and saves."""

    r: NonNegative = 0.0
    """Steps weigh in the average as their number to this power."""
    weight_lr_power: NonNegative = 2.0
    """Steps weigh in the average as the learning rate to this power."""

    package = "schedulefree"
    counts = ("k", "weight_sum", "lr_max", "train_mode")
    whole = "counts steps, not weights"
    spoils_gradients = True

    def refuse(self, train):
        super().refuse(train)
        if not train.lr_scheduler_type.name.startswith("constant"):
            raise RecipeError(
                f"train.lr_scheduler_type: {self.name} needs none; take constant, or constant_with_warmup"
            )
        if "adam_beta1" in self.reads and not train.adam_beta1:
            raise RecipeError(f"train.adam_beta1: {self.name} needs more than 0, such as 0.9")

    @contextmanager
    def learning(self, optimizer: Any):
        optimizer.train()
        yield

    @contextmanager
    def settled(self, optimizer: Any):
        from torch import no_grad

        if not optimizer.param_groups[0]["train_mode"]:
            yield
            return
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        before = [weight.detach().clone() for weight in weights]  # there and back again rounds
        optimizer.eval()
        try:
            yield
        finally:
            with no_grad():
                for weight, was in zip(weights, before, strict=True):
                    weight.copy_(was)
            for group in optimizer.param_groups:
                group["train_mode"] = True

    def finish(self, optimizer: Any):
        optimizer.eval()


@optimizer("schedule_free_adamw")
class ScheduleFreeAdamW(ScheduleFree):
    """Schedule-Free AdamW (Defazio et al. 2024, arXiv:2405.15682): gradients are taken between the weights and their
    average, which takes the place of a decaying learning rate."""

    def make(self, weights, train):
        return self.library().AdamWScheduleFree(
            groups(weights, train), r=self.r, weight_lr_power=self.weight_lr_power, **adams(train)
        )


@optimizer("schedule_free_radam")
class ScheduleFreeRAdam(ScheduleFree):
    """Schedule-Free RAdam (arXiv:2405.15682): needs no warmup either, for it begins as gradient descent."""

    def make(self, weights, train):
        return self.library().RAdamScheduleFree(
            groups(weights, train), r=self.r, weight_lr_power=self.weight_lr_power, **adams(train)
        )


@optimizer("schedule_free_sgd")
class ScheduleFreeSGD(ScheduleFree):
    """Schedule-Free gradient descent (arXiv:2405.15682)."""

    momentum: Beta = 0.9
    """How near the weights' average gradients are taken."""
    reads = ()

    def refuse(self, train):
        super().refuse(train)
        if not self.momentum:
            raise RecipeError(f"train.optim.momentum: {self.name} needs more than 0, such as 0.9")

    def make(self, weights, train):
        options = {"r": self.r, "weight_lr_power": self.weight_lr_power}
        return self.library().SGDScheduleFree(groups(weights, train), train.learning_rate, self.momentum, **options)
