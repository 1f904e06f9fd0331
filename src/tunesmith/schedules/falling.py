"""Learning rates that fall without turning."""

from ..config.record import Count, Positive
from ..errors import RecipeError
from .base import Schedule, schedule


@schedule("linear")
class Linear(Schedule):
    """A straight line down to 0."""


@schedule("polynomial")
class Polynomial(Schedule):
    """A power of what is left of the run."""

    power: Positive = 1.0
    """The power; 1 is a straight line."""
    lr_end: Positive = 1e-7
    """The learning rate at the end."""

    def refuse(self, train):
        if self.lr_end >= train.learning_rate:
            raise RecipeError(
                f"train.lr_scheduler_type.lr_end: {self.lr_end:g} must be less than train.learning_rate,"
                f" {train.learning_rate:g}"
            )


@schedule("inverse_sqrt")
class InverseSqrt(Schedule):
    """One over the root of the steps taken (Vaswani et al. 2017, arXiv:1706.03762)."""

    timescale: Count | None = None
    """Steps in which the rate falls to about 0.7; those of warmup unless given, or else 10,000."""
