"""Adagrad, as torch has it."""

from ..config.record import NonNegative, Positive
from .base import Optim, groups, optimizer


@optimizer("adagrad")
class Adagrad(Optim):
    """Adagrad (Duchi et al. 2011): each weight moves by its gradient over the root of the sum of all squares so far.
    Weights decay by their gradient (L2), as in torch."""

    lr_decay: NonNegative = 0.0
    """The rate is divided by 1 + this times the steps taken."""
    eps: Positive = 1e-10
    """Added to the denominator."""
    initial_accumulator_value: NonNegative = 0.0
    """What the sum of squares begins with."""

    reads = ()

    def make(self, weights, train):
        from torch.optim import Adagrad

        return Adagrad(
            groups(weights, train),
            train.learning_rate,
            self.lr_decay,
            initial_accumulator_value=self.initial_accumulator_value,
            eps=self.eps,
        )
