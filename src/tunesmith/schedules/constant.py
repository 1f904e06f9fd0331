"""Learning rates that stay."""

from .base import Schedule, schedule


@schedule("constant")
class Constant(Schedule):
    """The same from the first step to the last; there is no warmup."""


@schedule("constant_with_warmup")
class ConstantWithWarmup(Schedule):
    """The same, once warmed up."""
