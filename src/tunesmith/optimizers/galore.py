"""GaLore: Adam on gradients projected onto their singular vectors."""

from typing import Annotated

from annotated_types import Ge, Lt

from ..config.record import Count, Fraction
from ._projected import Projected
from .base import optimizer


@optimizer("galore_adamw")
class GaLore(Projected):
    """GaLore (Zhao et al. 2024, arXiv:2403.03507): all weights learn, and Adam remembers a projection of each matrix's
    gradient. With train.optimizer_in_backward it is galore_adamw_layerwise."""

    def family(self):
        from ._low_rank import GaLore

        return GaLore


@optimizer("galore_adafactor")
class GaLoreAdafactor(Projected):
    """GaLore (arXiv:2403.03507) with Adafactor in the place of Adam, for every weight."""

    decay_rate: Annotated[float, Lt(0)] = -0.8
    """The mean of squares decays by 1 - step to this power."""

    reads = ()

    def family(self):
        from ._low_rank import GaLoreAdafactor

        return GaLoreAdafactor

    def settings(self, train):
        return {"lr": train.learning_rate, "decay_rate": self.decay_rate}


@optimizer("q_galore_adamw")
class QGaLore(Projected):
    """Q-GaLore (Zhang et al. 2024, arXiv:2407.08296), of which projections in 4 bits, found anew less often where they
    hardly change, are done here; weights and Adam's means keep their precision."""

    cos_threshold: Fraction = 0.4
    """How alike projections must be, on average, for the steps between them to grow."""
    gamma_proj: Annotated[float, Ge(1)] = 2.0
    """What the steps between two projections are then multiplied by."""
    queue_size: Count = 5
    """How many of the last projections are compared."""

    def projection(self):
        more = {"cos_threshold": self.cos_threshold, "gamma_proj": self.gamma_proj, "queue_size": self.queue_size}
        return super().projection() | more

    def family(self):
        from ._low_rank import QGaLore

        return QGaLore
