"""Turn the model's weights by products of sparse orthogonal matrices."""

from math import log2
from typing import ClassVar

from ..config.record import Count, Fraction
from ..errors import RecipeError
from ._peft import Names, Peft, layers, targets, without_compiler
from .base import method, sizes
from .oft import check_blocks


@method("boft")
class BOFT(Peft):
    """BOFT (Liu et al. 2023, arXiv:2311.06243): orthogonal fine-tuning by butterfly factors, which mix all features by
    blocks that are few and small."""

    boft_block_size: Count = 4
    """Features that are turned together; must be even with several factors, and divide each layer's inputs."""
    boft_n_butterfly_factor: Count = 1
    """How many sparse matrices are multiplied; 1 is plain blocks, and each more doubles how far features mix. More than
    1 needs a GPU, and there a compiler for PEFT's kernel."""
    target_modules: Names = "all-linear"
    """Names of the layers, or a pattern of whole paths; all-linear is every one but the head."""
    boft_dropout: Fraction = 0.0
    """Share of blocks that are not turned, drawn anew each time in training."""

    suits: ClassVar[tuple[float, float]] = (0.0001, 0.01)
    peft_type: ClassVar[str] = "BOFT"
    obeyed: ClassVar[set[str]] = {"boft_block_size", "boft_block_num", "boft_n_butterfly_factor", "boft_dropout"}
    unread: ClassVar[set[str]] = {"init_weights"}

    def config(self, model, kind):
        from peft import BOFTConfig

        without_compiler()
        self.check_kernel()
        chosen = targets(model, self.target_modules)
        found = layers(model, self.target_modules, kind)
        check_blocks(found, self.boft_block_size, "boft_block_size")
        for path, layer in found.items():
            blocks = sizes(layer)[1] // self.boft_block_size
            even = self.boft_n_butterfly_factor == 1 or (self.boft_block_size % 2 == 0 and blocks % 2 == 0)
            if not even or self.boft_n_butterfly_factor - 1 > log2(blocks):
                raise RecipeError(
                    f"method.boft_n_butterfly_factor: {path} has {blocks} blocks of {self.boft_block_size}, too few or"
                    f" odd for {self.boft_n_butterfly_factor} factors; take fewer"
                )
        return BOFTConfig(
            boft_block_size=self.boft_block_size,
            boft_n_butterfly_factor=self.boft_n_butterfly_factor,
            target_modules=chosen,
            boft_dropout=self.boft_dropout,
            **kind,
        )

    def check_kernel(self) -> None:
        """Refuse several factors without the kernel for them: PEFT would take one instead."""
        from peft.tuners.boft.layer import get_fbd_cuda

        if self.boft_n_butterfly_factor > 1 and not get_fbd_cuda():
            raise RecipeError(
                "method.boft_n_butterfly_factor: more than 1 needs a GPU and a compiler for PEFT's kernel; take 1"
            )
