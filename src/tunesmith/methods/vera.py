"""Train two vectors a layer, between matrices that are drawn once for all layers."""

from typing import ClassVar

from ..config.record import Count, Fraction, Natural
from ._peft import Names, Peft, targets
from .base import method


@method("vera")
class VeRA(Peft):
    """VeRA (Kopiczko et al. 2023, arXiv:2310.11454): low-rank updates by two random matrices that all layers share; a
    layer learns only how to scale what comes out of each."""

    r: Count = 256
    """Rank of the random matrices; it costs little, r numbers a layer."""
    target_modules: Names = "all-linear"
    """Names of the layers to update, or a pattern of whole paths; all-linear is every one but the head."""
    vera_dropout: Fraction = 0.0
    """Share of the update's inputs dropped in training."""
    d_initial: float = 0.1
    """What the first of the two vectors begins as."""
    projection_prng_key: Natural = 0
    """Seed of the random matrices."""
    save_projection: bool = True
    """Save the random matrices too: larger, but sure to be the same on any machine."""

    suits: ClassVar[tuple[float, float]] = (0.001, 0.1)
    peft_type: ClassVar[str] = "VERA"
    obeyed: ClassVar[set[str]] = {"r", "projection_prng_key", "save_projection", "vera_dropout", "d_initial"}
    unread: ClassVar[set[str]] = {"init_weights"}

    def config(self, model, kind):
        from peft import VeraConfig

        return VeraConfig(
            r=self.r,
            target_modules=targets(model, self.target_modules),
            vera_dropout=self.vera_dropout,
            d_initial=self.d_initial,
            projection_prng_key=self.projection_prng_key,
            save_projection=self.save_projection,
            **kind,
        )
