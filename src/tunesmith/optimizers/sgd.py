"""Gradient descent, as torch has it."""

from ..config.record import Fraction
from ..errors import RecipeError
from .base import Optim, groups, optimizer


@optimizer("sgd")
class SGD(Optim):
    """Gradient descent: each weight moves by its gradient times the learning rate. It remembers nothing, unless with
    momentum; with train.optimizer_in_backward it is LOMO (Lv et al. 2023, arXiv:2306.09782)."""

    momentum: Fraction = 0.0
    """Share of the last step that is taken again."""
    dampening: Fraction = 0.0
    """Share of the gradient that is left out, with momentum."""
    nesterov: bool = False
    """Look at where the momentum leads before taking the step."""

    reads = ()

    def refuse(self, train):
        super().refuse(train)
        if not self.momentum and (self.dampening or self.nesterov):
            raise RecipeError("train.optim: dampening and nesterov are for momentum; set train.optim.momentum=0.9")
        if self.nesterov and self.dampening:
            raise RecipeError("train.optim.dampening: does not go with nesterov; leave one of them out")

    def make(self, weights, train):
        from torch.optim import SGD

        options = {"momentum": self.momentum, "dampening": self.dampening, "nesterov": self.nesterov}
        return SGD(groups(weights, train), lr=train.learning_rate, **options)
