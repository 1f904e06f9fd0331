"""Weights in 1 to 8 bits by HQQ. Its layers are put in here: transformers 5.23 says of its own HqqConfig that it is
"not available yet"."""

from typing import ClassVar, Literal

from ..config.record import Count
from ..errors import RecipeError
from .base import Quantised, linear_layers, precision


@precision("hqq")
class HQQ(Quantised):
    """Half-quadratic quantisation (Badri & Shaji 2023, mobiusml.github.io/hqq_blog): scales are fitted to the weights,
    without data."""

    package: ClassVar[str] = "hqq"

    nbits: Literal[8, 6, 5, 4, 3, 2, 1] = 4
    """Bits a weight; 5 and 6 take the room of 8."""
    group_size: Count = 64
    """Weights that share a scale, a multiple of 8; a small group is nearer to the weights, and takes more room."""

    def check(self) -> None:
        super().check()
        if self.group_size % 8:
            raise RecipeError(f"model.precision.group_size: must be a multiple of 8 (got {self.group_size})")

    def fits(self, layers):
        for path, layer in layers.items():
            count = layer.in_features * layer.out_features
            if count % self.group_size:
                raise RecipeError(
                    f"model.precision.group_size: {path} has {count} weights, which are not made of groups of"
                    f" {self.group_size}; take a divisor"
                )

    def room(self, count, row):
        held = {8: 1.0, 6: 1.0, 5: 1.0, 4: 0.5, 3: 0.4, 2: 0.25, 1: 0.125}  # ten numbers of 3 bits in 32
        return count * held[self.nbits], 2 * 4 * count / self.group_size

    def quantise(self, model, skip: list[str]) -> None:
        from hqq.core.quantize import (  # pyright: ignore[reportMissingImports] - an extra
            BaseQuantizeConfig,
            HQQLinear,
        )
        from torch.cuda import is_available

        for path, layer in list(linear_layers(model, skip)):
            above, _, name = path.rpartition(".")
            config = BaseQuantizeConfig(nbits=self.nbits, group_size=self.group_size)
            made = HQQLinear(layer, config, compute_dtype=self.dtype(), device="cuda" if is_available() else "cpu")
            setattr(model.get_submodule(above), name, made)
