"""What bitsandbytes' optimizers read; the entries are in bits_8.py and bits_32.py."""

from __future__ import annotations

from typing import Annotated, Any

from annotated_types import Gt, Lt

from ..config.record import Beta, Count, Natural, Positive, record
from ..errors import RecipeError
from .base import Optim, adams, groups


@record
class Bits(Optim):
    """What all of bitsandbytes' optimizers have in common."""

    package = "bitsandbytes"
    kind = "AdamW"
    """bitsandbytes' own name."""
    bits = 32
    paged = False

    def refuse(self, train):
        super().refuse(train)
        if self.paged:
            from torch.cuda import is_available

            if not is_available():
                raise RecipeError(
                    f"train.optim: {self.name} pages states out of a GPU, and there is none here; take"
                    f" {self.name.removeprefix('paged_').replace('adamw_8bit', 'adamw_bnb_8bit')}, or adamw_torch"
                )

    def options(self, train) -> dict[str, Any]:
        return adams(train)

    def make(self, weights, train):
        options = self.options(train)
        options |= {"is_paged": True} if self.paged else {}
        made: Any = getattr(self.library().optim, self.kind)
        return made(groups(weights, train), optim_bits=self.bits, **options)


@record
class Eight(Bits):
    """States of 8 bits."""

    min_8bit_size: Natural = 4096
    """Weights of fewer numbers have states of 32 bits."""

    bits = 8

    def options(self, train):
        return super().options(train) | {"min_8bit_size": self.min_8bit_size}


@record
class Lions(Bits):
    """What Lion reads."""

    kind = "Lion"
    reads = ("adam_beta1", "adam_beta2")

    def options(self, train):
        return {"lr": train.learning_rate, "betas": (train.adam_beta1, train.adam_beta2)}


@record
class AdEMAMixes(Bits):
    """What AdEMAMix reads."""

    beta3: Beta = 0.9999
    """Decay of the slow mean of gradients."""
    alpha: Positive = 5.0
    """Weight of the slow mean beside the fast one."""
    t_alpha: Count | None = None
    """Steps over which alpha rises to its value; at once unless given."""
    t_beta3: Count | None = None
    """Steps over which beta3 rises to its value; at once unless given."""

    kind = "AdEMAMix"

    def options(self, train):
        usual = adams(train)
        over = {"alpha": self.alpha, "t_alpha": self.t_alpha, "t_beta3": self.t_beta3}
        return usual | over | {"betas": (*usual["betas"], self.beta3)}


@record
class RMSprops(Bits):
    """What RMSprop reads."""

    alpha: Annotated[float, Gt(0), Lt(1)] = 0.99
    """Decay of the mean of squared gradients."""
    eps: Positive = 1e-8
    """Added to the denominator."""

    kind = "RMSprop"
    reads = ()

    def options(self, train):
        return {"lr": train.learning_rate, "alpha": self.alpha, "eps": self.eps}
