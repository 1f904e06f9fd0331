"""Muon: steps of which no direction is larger than another."""

from typing import Literal

from ..config.record import Beta, Count
from ..errors import RecipeError
from .base import Learnt, Optim, adams, groups, optimizer


@optimizer("muon")
class Muon(Optim):
    """Muon (Jordan et al. 2024; Liu et al. 2025, arXiv:2502.16982), by torch: the momentum of each matrix within the
    model, made orthogonal; embeddings, heads and vectors learn by AdamW."""

    momentum: Beta = 0.95
    """Decay of the momentum."""
    nesterov: bool = True
    """Look at where the momentum leads before taking the step."""
    ns_steps: Count = 5
    """Newton-Schulz iterations that make it orthogonal."""
    adjust_lr_fn: Literal["match_rms_adamw", "original"] = "match_rms_adamw"
    """How a matrix's shape changes the rate: so that AdamW's learning rates suit it, or as Muon first had it."""

    def make(self, weights, train):
        from ._together import Together, muon

        def kind(one: Learnt) -> dict[str, bool]:
            return {"inner": one.inner}

        found = groups(weights, train, kind)
        matrices = [group for group in found if group["inner"]]
        if not matrices:
            raise RecipeError(
                "train.optim: muon is for matrices within the model, and none learns; take adamw_torch_fused"
            )
        options = {"momentum": self.momentum, "nesterov": self.nesterov, "ns_steps": self.ns_steps}
        parts = [muon(matrices, lr=train.learning_rate, adjust_lr_fn=self.adjust_lr_fn, **options)]
        others = [group for group in found if not group["inner"]]
        return Together(parts, others, adams(train))
