"""APOLLO: gradients scaled as Adam would, by what a random projection tells."""

from typing import Literal

from ..config.record import Count, Positive
from ._projected import Projected
from .base import optimizer


@optimizer("apollo_adamw")
class Apollo(Projected):
    """APOLLO (Zhu et al. 2024, arXiv:2412.05270): gradients are scaled, channel by channel, as Adam scales a random
    projection of them. With train.optimizer_in_backward it is apollo_adamw_layerwise."""

    scale: Positive = 1.0
    """The update is multiplied by the root of this."""
    scale_type: Literal["channel", "tensor"] = "channel"
    """Whether each channel is scaled by itself, or all of a matrix alike."""

    def projection(self):
        return super().projection() | {"scale_type": self.scale_type}

    def settings(self, train):
        return super().settings(train) | {"seed": train.seed}

    def family(self):
        from ._low_rank import Apollo

        return Apollo


@optimizer("apollo_mini")
class ApolloMini(Apollo):
    """APOLLO-Mini (arXiv:2412.05270): one dimension is enough to scale a whole matrix by; Adam then remembers next to
    nothing."""

    rank: Count = 1
    """Dimensions that are left of the shorter side of a matrix."""
    scale: Positive = 128.0
    """The update is multiplied by the root of this."""
    scale_type: Literal["channel", "tensor"] = "tensor"
    """Whether each channel is scaled by itself, or all of a matrix alike."""
