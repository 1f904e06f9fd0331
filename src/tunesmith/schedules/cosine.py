"""Learning rates along a cosine (Loshchilov and Hutter 2016, arXiv:1608.03983)."""

from ..config.record import Count, Fraction, Positive, record
from ..errors import RecipeError
from .base import Schedule, schedule


@schedule("cosine")
class Cosine(Schedule):
    """Half a wave of a cosine, down to 0."""

    num_cycles: Positive = 0.5
    """Waves in the run; a half only falls."""


@schedule("cosine_with_restarts")
class CosineWithRestarts(Schedule):
    """Half a wave of a cosine, several times, each from the peak on."""

    num_cycles: Count = 1
    """How many times."""


@record
class WithMinimum(Schedule):
    """What does not fall to 0."""

    num_cycles: Positive = 0.5
    """Waves in the run; a half only falls."""
    min_lr: Positive | None = None
    """The learning rate at the end."""
    min_lr_rate: Fraction | None = None
    """The same as a share of the peak; a tenth unless either is given."""

    def refuse(self, train):
        if self.min_lr is not None and self.min_lr_rate is not None:
            raise RecipeError("train.lr_scheduler_type: min_lr and min_lr_rate say the same; leave one of them out")
        if self.min_lr is not None and self.min_lr > train.learning_rate:
            raise RecipeError(
                f"train.lr_scheduler_type.min_lr: {self.min_lr:g} must be at most train.learning_rate,"
                f" {train.learning_rate:g}"
            )

    def options(self, warmup, total):
        given = super().options(warmup, total)
        return given if self.min_lr is not None else {"min_lr_rate": 0.1} | given


@schedule("cosine_with_min_lr")
class CosineWithMinLr(WithMinimum):
    """Half a wave of a cosine, down to a learning rate above 0."""


@schedule("cosine_warmup_with_min_lr")
class CosineWarmupWithMinLr(WithMinimum):
    """The same, with a warmup that begins above 0."""

    warmup_lr_rate: Fraction | None = None
    """Where the warmup begins, as a share of the peak; one over its steps unless given."""
