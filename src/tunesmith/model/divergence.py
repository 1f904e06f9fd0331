"""How far what a model would say is from what its teacher would, at every token.

Letters of shapes: C tokens at once, V words.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .linear_loss import After, exact


class Divergence(NamedTuple):
    """The generalised Jensen-Shannon divergence of arXiv:2306.13649, whose ends are the two of Kullback and Leibler.

    With p the teacher's chances, q the model's and m = beta p + (1 - beta) q, it is
    beta KL(p || m) + (1 - beta) KL(q || m); for beta 0 it stands for KL(p || q), for beta 1 for KL(q || p).
    """

    head: Callable[[Tensor], Tensor]
    """The teacher's."""
    after: After
    beta: float
    temperature: float

    def theirs(self, states: Tensor) -> Tensor:
        """[C, V] the logarithms of the teacher's chances."""
        with torch.no_grad():
            logits, _ = self.after.apply_(exact(self.head(states)))
            return torch.log_softmax(logits / self.temperature, -1)

    def of(self, logits: Tensor, states: Tensor) -> Tensor:
        """[C] the divergence, of which autograd keeps everything."""
        p, q = self.theirs(states), torch.log_softmax(logits / self.temperature, -1)
        if self.beta == 0:
            return (p.exp() * (p - q)).sum(-1)
        if self.beta == 1:
            return (q.exp() * (q - p)).sum(-1)
        m = torch.logaddexp(p + math.log(self.beta), q + math.log1p(-self.beta))
        return self.beta * (p.exp() * (p - m)).sum(-1) + (1 - self.beta) * (q.exp() * (q - m)).sum(-1)

    def look(self, logits: Tensor, states: Tensor, slopes: bool) -> tuple[Tensor, Tensor | None]:
        """[C] the divergence, and [C, V] how fast it falls with the model's logits, which are overwritten."""
        p = self.theirs(states)
        q = torch.log_softmax(logits.div_(self.temperature), -1)
        share = torch.exp(q, out=logits)
        if self.beta == 0:
            chance = p.exp()
            value = p.sub_(q).mul_(chance).sum(-1)
            return value, chance.sub_(share).div_(self.temperature) if slopes else None
        if self.beta == 1:
            value, weight, excess = (share * q.sub_(p)).sum(-1), 1.0, q
            own = value
        else:
            m = torch.logaddexp(p + math.log(self.beta), q + math.log1p(-self.beta))
            weight, excess = 1 - self.beta, q.sub_(m)
            own = (share * excess).sum(-1)
            value = self.beta * m.sub_(p).mul_(p.exp_()).sum(-1).neg_() + weight * own
        if not slopes:
            return value, None
        return value, excess.sub_(own.unsqueeze(-1)).mul_(share).mul_(-weight / self.temperature)
