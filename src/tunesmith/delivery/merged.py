"""The whole model, as transformers and every engine load it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from .base import Into, Way, way

if TYPE_CHECKING:
    from .source import Source

Numbers = Literal["fp32", "bf16", "fp16"]
APART: dict[str, float] = {"fp32": 1e-5, "fp16": 1e-3, "bf16": 1e-2}
"""Nats a token that rounding to so many bits may cost."""


@way("merged")
class Merged(Way):
    """One folder of safetensors in which the weights have taken in what was learnt."""

    dtype: Numbers = "fp32"
    """How its numbers are written: bf16 is half as large as fp32, and rounds away the smallest of what was learnt."""
    into: Into = "trained_on"
    """Of a run over quantised weights: `trained_on` merges into the weights that it was trained on, `original` into
    those of the model before these were quantised, which the run has never met; how far it then is from itself is
    said."""

    def check(self, source: Source) -> None:
        source.refuse_unmergeable("--to merged writes a whole model")

    def write(self, source: Source, folder: Path) -> None:
        from ..model.load import save_whole

        save_whole(source.whole(self.into), source.tokenizer, folder, self.dtype)

    def apart(self) -> float:
        return APART[self.dtype]
