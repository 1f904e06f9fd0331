"""Turn the model's weights by orthogonal matrices of blocks."""

from typing import ClassVar

from ..config.record import Count, Positive
from ..errors import RecipeError
from ._peft import Names, Peft, layers, targets
from .base import method, sizes


@method("oft")
class OFT(Peft):
    """Orthogonal fine-tuning (Qiu et al. 2023, arXiv:2306.07280): inputs of layers are turned block by block, which
    keeps the angles between what a layer's neurons look for."""

    oft_block_size: Count = 32
    """Features that are turned together; must divide the width of each layer's input."""
    target_modules: Names = "all-linear"
    """Names of the layers, or a pattern of whole paths; all-linear is every one but the head."""
    coft: bool = False
    """Keep each turn small, below eps."""
    eps: Positive = 6e-5
    """The largest turn with coft."""
    block_share: bool = False
    """Turn all blocks of a layer alike."""
    use_cayley_neumann: bool = True
    """Find the orthogonal matrix by a series instead of an inverse: faster, and close enough for small turns."""
    num_cayley_neumann_terms: Count = 5
    """Terms of that series."""

    suits: ClassVar[tuple[float, float]] = (0.0001, 0.01)
    peft_type: ClassVar[str] = "OFT"
    obeyed: ClassVar[set[str]] = {
        "r", "oft_block_size", "coft", "eps", "block_share", "use_cayley_neumann", "num_cayley_neumann_terms",
    }  # fmt: skip
    unread: ClassVar[set[str]] = {"init_weights", "module_dropout"}  # PEFT 0.21 makes the dropout and never calls it

    def config(self, model, kind):
        from peft import OFTConfig

        chosen = targets(model, self.target_modules)
        check_blocks(layers(model, self.target_modules, kind), self.oft_block_size, "oft_block_size")
        return OFTConfig(
            r=0,
            oft_block_size=self.oft_block_size,
            target_modules=chosen,
            coft=self.coft,
            eps=self.eps,
            block_share=self.block_share,
            use_cayley_neumann=self.use_cayley_neumann,
            num_cayley_neumann_terms=self.num_cayley_neumann_terms,
            **kind,
        )


def check_blocks(found, size: int, key: str) -> None:
    """Refuse blocks that do not divide the inputs of each layer."""
    for path, layer in found.items():
        features = sizes(layer)[1]
        if features % size:
            raise RecipeError(
                f"method.{key}: {path} has inputs of {features} features, which are not made of blocks of {size};"
                " take a divisor of all layers' inputs"
            )
