"""Weights as whole numbers by torchao, on a CPU too."""

from typing import Any, ClassVar

from ..config.record import Count, record
from ..errors import RecipeError
from .base import Quantised, precision


@record
class WholeNumbers(Quantised):
    package: ClassVar[str] = "torchao"
    bits: ClassVar[int]

    def group(self) -> int | None:
        raise NotImplementedError

    def fits(self, layers):
        size = self.group()
        for path, layer in layers.items():
            if size and layer.in_features % size:
                raise RecipeError(
                    f"model.precision.group_size: {path} has rows of {layer.in_features} weights, which are not made of"
                    f" groups of {size}; take a divisor"
                )

    def room(self, count, row):
        return count, 5 * count / (self.group() or row)  # a scale of 32 bits and a zero of 8

    def config(self, skip: list[str]) -> Any:
        import torch
        from torchao.quantization import (  # pyright: ignore[reportMissingImports] - an extra
            IntxWeightOnlyConfig,
            PerAxis,
            PerGroup,
        )
        from transformers import TorchAoConfig

        size = self.group()
        kind = IntxWeightOnlyConfig(
            weight_dtype=getattr(torch, f"int{self.bits}"), granularity=PerGroup(size) if size else PerAxis(0)
        )
        return TorchAoConfig(kind, modules_to_not_convert=skip)


@precision("torchao_int8")
class TorchaoInt8(WholeNumbers):
    """8-bit whole numbers by torchao, a scale for each row or group of weights."""

    bits: ClassVar[int] = 8

    group_size: Count | None = None
    """Weights of a row that share a scale; all of it unless given."""

    def group(self) -> int | None:
        return self.group_size


@precision("torchao_int4")
class TorchaoInt4(WholeNumbers):
    """4-bit whole numbers by torchao, a scale for each group of weights. They take a byte each: its packed 4 bits are
    for GPUs, and do not train."""

    bits: ClassVar[int] = 4

    group_size: Count = 32
    """Weights of a row that share a scale."""

    def group(self) -> int:
        return self.group_size
