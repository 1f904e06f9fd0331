"""Adafactor, as transformers has it."""

from typing import Annotated

from annotated_types import Lt

from ..config.record import Beta, Positive
from .base import Optim, groups, optimizer


@optimizer("adafactor")
class Adafactor(Optim):
    """Adafactor (Shazeer and Stern 2018, arXiv:1804.04235): the mean of squares is kept as one number a row and one a
    column; at the learning rate of the schedule, as in transformers' Trainer."""

    beta1: Beta | None = None
    """Decay of a mean of steps; none is kept unless given."""
    clip_threshold: Positive = 1.0
    """A step whose root mean square is larger is scaled down to it."""
    decay_rate: Annotated[float, Lt(0)] = -0.8
    """The mean of squares decays by 1 - step to this power."""
    eps: Positive = 1e-30
    """Added to the squares of gradients."""

    reads = ()

    def make(self, weights, train):
        from transformers.optimization import Adafactor

        return Adafactor(
            groups(weights, train),  # pyright: ignore[reportArgumentType] - an unannotated default of None
            lr=train.learning_rate,  # pyright: ignore[reportArgumentType]
            eps=(self.eps, 1e-3),
            clip_threshold=self.clip_threshold,
            decay_rate=self.decay_rate,
            beta1=self.beta1,  # pyright: ignore[reportArgumentType]
            scale_parameter=False,
            relative_step=False,
        )
