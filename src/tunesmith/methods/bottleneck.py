"""Train narrow networks between the model's layers."""

from typing import ClassVar, Literal

from ..config.record import Count, Fraction
from ..errors import RecipeError
from ._peft import Peft, in_blocks
from .base import largest_list, method, outputs, width


@method("bottleneck")
class Bottleneck(Peft):
    """Bottleneck adapters: what a layer gives goes through a narrow network, which adds to it. Houlsby et al. 2019
    (arXiv:1902.00751), Pfeiffer et al. 2020 (arXiv:2005.00247), parallel: He et al. 2021 (arXiv:2110.04366)."""

    bottleneck_size: Count | None = None
    """Width of the narrow network; 64, or the model's own if that is less, unless given."""
    placement: Literal["houlsby", "pfeiffer", "parallel"] = "houlsby"
    """Behind attention and feed-forward part, behind the latter alone, or beside the latter."""
    non_linearity: Literal["relu", "gelu", "silu", "tanh", "sigmoid", "linear"] = "relu"
    """What is done within the narrow network."""
    dropout: Fraction = 0.0
    """Share of the narrow network's features dropped in training."""
    scaling: float = 1.0
    """What is added is multiplied by this; the paper on parallel ones takes 4."""

    suits: ClassVar[tuple[float, float]] = (5e-5, 0.005)
    peft_type: ClassVar[str] = "BOTTLENECK"
    obeyed: ClassVar[set[str]] = {"bottleneck_size", "parallel", "non_linearity", "dropout", "scaling"}
    begins_alike: ClassVar[bool] = True

    @classmethod
    def family(cls):
        from ._bottleneck_layer import BottleneckConfig

        return BottleneckConfig

    def config(self, model, kind):
        hidden = model.config.get_text_config().hidden_size
        size = self.bottleneck_size or min(64, hidden)
        if size > hidden:
            raise RecipeError(f"method.bottleneck_size: {size} is more than the model's own width, {hidden}; take less")
        return self.family()(
            target_modules=in_blocks(model, self.places(model)),
            bottleneck_size=size,
            parallel=self.placement == "parallel",
            non_linearity=self.non_linearity,
            dropout=self.dropout,
            scaling=self.scaling,
            **kind,
        )

    def places(self, model) -> list[str]:
        """The modules of a block that adapters stand behind or beside."""
        block = largest_list(model)[0]
        attention, feedforward = outputs(model, block)
        if self.placement == "houlsby":
            return [attention, feedforward]
        if self.placement == "pfeiffer":
            return [feedforward]
        whole = feedforward.rpartition(".")[0]
        if not whole or sum(bool(width(part)) for part in block.get_submodule(whole).modules()) < 2:
            raise RecipeError(
                f"method.placement: parallel needs a feed-forward part in one module, and {type(block).__name__} has it"
                " in several; take pfeiffer"
            )
        return [whole]
