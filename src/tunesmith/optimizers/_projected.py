"""Which weights are projected: matrices within the model whose sides are longer than the rank."""

from __future__ import annotations

from typing import Any

from ..config.record import Count, Positive, record
from ..errors import RecipeError
from .base import Learnt, Optim, adams, groups


@record
class Projected(Optim):
    """Adam on gradients of fewer dimensions; embeddings, heads, vectors and small matrices learn by Adam itself."""

    rank: Count = 128
    """Dimensions that are left of the shorter side of a matrix."""
    update_proj_gap: Count = 200
    """Steps until a projection is found anew."""
    scale: Positive = 0.25
    """What the update is multiplied by."""

    def projection(self) -> dict[str, Any]:
        """What groups of projected weights have beside others."""
        return {"rank": self.rank, "update_proj_gap": self.update_proj_gap, "scale": self.scale}

    def family(self) -> Any:
        """The optimizer's class."""
        raise NotImplementedError

    def settings(self, train) -> dict[str, Any]:
        return adams(train)

    def make(self, weights, train):
        def kind(one: Learnt) -> dict[str, Any]:
            return self.projection() if one.inner and min(one.weight.shape) > self.rank else {}

        if not any(map(kind, weights)):
            longest = max((min(one.weight.shape) for one in weights if one.inner), default=0)
            raise RecipeError(
                f"train.optim.rank: {self.name} projects matrices whose sides are longer than {self.rank}, and of what"
                f" learns none is (the longest has {longest}); make it smaller, or take method=full or"
                " train.optim=adamw_torch_fused"
            )
        return self.family()(groups(weights, train, kind), self.settings(train))
