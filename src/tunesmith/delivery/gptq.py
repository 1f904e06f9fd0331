"""Weights in few bits by GPTQ and AWQ, as vLLM and transformers load them on a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..config.record import Count, record
from ..errors import BadEnvironment, RecipeError
from ..precision.base import require
from .base import Into, Way, way

if TYPE_CHECKING:
    from .source import Source

APART: dict[int, float] = {8: 2e-2, 4: 0.3, 3: 1.0}
"""Nats a token that rounding to so many bits may cost."""


@record
class FewBits(Way):
    """The whole model with linear layers in few bits, fitted to what they are given when the model reads rows that it
    was trained on; needs a GPU."""

    group_size: Literal[32, 64, 128] = 128
    """Weights that share a scale; a small group is nearer to the weights, and takes more room."""
    samples: Count = 128
    """Rows of the run's own training data that the layers are fitted to, or all if there are fewer."""
    into: Into = "trained_on"
    """Of a run over quantised weights, into which of them the adapter is merged; see `merged`."""

    def width(self) -> int:
        """Bits a weight."""
        return 4

    def check(self, source: Source) -> None:
        import torch

        if source.labels or source.tuned.scores:
            raise RecipeError(
                f"{source.tuned.folder.path}: --to {self.name} is for models that write; this run scores or tells"
                " classes apart; deliver it with --to merged"
            )
        if not torch.cuda.is_available():
            raise BadEnvironment(
                f"--to {self.name}: is made on a GPU, and there is none here; deliver it with --to gguf, which has 4"
                " bits too"
            )
        require("gptqmodel", f"--to {self.name}")
        source.refuse_unmergeable("rounding is of a whole model")

    def write(self, source: Source, folder: Path) -> None:
        from ._gptq import write_quantised

        write_quantised(self, source, folder)

    def apart(self) -> float:
        return APART[self.width()]


@way("gptq")
class Gptq(FewBits):
    """Linear layers in few bits by GPTQ (Frantar et al. 2022, arXiv:2210.17323): column by column, what rounding one
    costs is made up for by those after it. Needs a GPU and gptqmodel."""

    bits: Literal[8, 4, 3] = 4
    """Bits a weight."""

    def width(self) -> int:
        return self.bits


@way("awq")
class Awq(FewBits):
    """Linear layers in 4 bits by AWQ (Lin et al. 2023, arXiv:2306.00978): weights that meet large numbers are scaled
    so that rounding costs them less. Needs a GPU and gptqmodel."""
