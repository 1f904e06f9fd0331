"""AdamW, as torch has it."""

from .base import Optim, adams, groups, optimizer


@optimizer("adamw_torch")
class AdamW(Optim):
    """AdamW (Loshchilov and Hutter 2017, arXiv:1711.05101): each weight moves by the mean of its gradients over the
    root of the mean of their squares."""

    def make(self, weights, train):
        from torch.optim import AdamW

        return AdamW(groups(weights, train), **adams(train))


@optimizer("adamw_torch_fused")
class FusedAdamW(Optim):
    """AdamW (arXiv:1711.05101), a step in one pass over memory: as adamw_torch, but for rounding, and faster."""

    def make(self, weights, train):
        from torch.optim import AdamW

        return AdamW(groups(weights, train), fused=True, **adams(train))
