"""RMSprop, as torch has it."""

from ..config.record import Beta, Positive
from .base import Optim, groups, optimizer


@optimizer("rmsprop")
class RMSprop(Optim):
    """RMSprop (Hinton 2012): each weight moves by its gradient over the root of the mean of squares. Weights decay by
    their gradient (L2), as in torch."""

    alpha: Beta = 0.99
    """Decay of the mean of squared gradients."""
    momentum: Beta = 0.0
    """Share of the last step that is taken again."""
    eps: Positive = 1e-8
    """Added to the denominator."""
    centered: bool = False
    """Divide by the deviation of the gradients instead."""

    reads = ()

    def make(self, weights, train):
        from torch.optim import RMSprop

        options = {"alpha": self.alpha, "momentum": self.momentum, "eps": self.eps, "centered": self.centered}
        return RMSprop(groups(weights, train), train.learning_rate, **options)
