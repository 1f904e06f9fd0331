"""What a method is: a choice of which parameters learn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..config.registry import Registry
from ..errors import RecipeError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel


class Method:
    """Make a model trainable in part; the objective never learns which part.

    All but `attach` is for methods that want a word in what comes after it; most do not.
    """

    name: ClassVar[str]
    detachable: ClassVar[bool] = True
    """Whether the untouched model can still be run by switching the method off; what is saved is then an adapter."""
    leaves_base: ClassVar[bool] = True
    """Whether switching a trained adapter off leaves the model as it was; not so where weights of its own learn too."""
    reads_gradients: ClassVar[bool] = False
    """Whether `after_step` looks at gradients, which must then be kept until it has."""

    suits: ClassVar[tuple[float, float]] = (1e-6, 1e-4)
    """The lowest and the highest learning rate that it usually learns at by Adam; beyond them it is said."""

    adapter: str | None = None
    """Folder of an adapter whose weights to begin with."""
    begins_alike: ClassVar[bool] = False
    """Whether the attached model must say what the model said, until something is learnt; this is then tried."""

    def attach(self, model: PreTrainedModel, heads: tuple[str, ...] = ()):
        """Return the model with just those parameters trainable that this method trains.

        `heads` names modules that are new, and so are trained and saved whole whatever the method.
        """
        raise NotImplementedError

    def begin(self, model, encode: Callable[[str], list[int]]) -> None:
        """Make of the attached model what needs words; `encode` turns a text into tokens of the model."""

    def begin_near(self, model, whole: Callable[[str], Tensor]) -> None:
        """Make of the attached model what needs weights as they were before they were quantised; `whole` reads them,
        by the path of their layer in the model."""

    def begin_among(self, model, rows: Callable[[int], Sequence[Any]], forward: Callable[[Any], Any]) -> str:
        """Make of the attached model what needs training rows, and say what was made; nothing if it needs none.

        `rows` gives batches of at least so many tokens, and `forward` runs the model over one of them.
        """
        return ""

    def rate(self, name: str) -> float:
        """What the learning rate of a parameter is multiplied by."""
        return 1.0

    def penalty(self, model) -> Tensor | None:
        """What is added to the loss of a step for the weights themselves."""
        return None

    def after_step(self, model, step: int, total: int) -> None:
        """Called when a step of so many was taken, the first being 1, and its gradients are still there."""

    def state(self, model) -> dict[str, Tensor]:
        """What `after_step` remembers beside the weights, for a run that is resumed."""
        return {}

    def restore(self, model, state: dict[str, Tensor]) -> None:
        """Remember what `state` said."""

    def save(self, model, folder: Path) -> None:
        """Write what was learnt, in safetensors: an adapter, or a whole model."""
        model.save_pretrained(folder)


method: Registry[Method] = Registry("method", "tunesmith.methods")


def largest_list(model) -> nn.ModuleList:
    """The model's blocks: of all its module lists, the one with the most parameters."""
    from torch.nn import ModuleList

    lists = [module for module in model.modules() if isinstance(module, ModuleList)]
    if not lists:
        raise RecipeError(f"method: needs a model made of blocks; {type(model).__name__} has none")
    return max(lists, key=lambda blocks: sum(weight.numel() for weight in blocks.parameters()))


def sizes(layer: Any) -> tuple[int, int]:
    """How many numbers a linear layer gives and takes, however they are held; GPT-2's lie the other way round."""
    if hasattr(layer, "out_features"):
        return layer.out_features, layer.in_features
    return layer.weight.shape[1], layer.weight.shape[0]


def width(layer: Any) -> int:
    """How many numbers a linear layer gives; 0 if it is none. GPT-2's are of a kind of their own."""
    return getattr(layer, "out_features", getattr(layer, "nf", 0)) if hasattr(layer, "bias") else 0


def plain(layer: Any) -> bool:
    """Whether a layer is torch's own linear one and its weights are ordinary numbers, nothing quantised."""
    from torch.nn import Linear, Parameter

    return type(layer) is Linear and type(layer.weight) is Parameter


def outputs(model, block: nn.Module) -> tuple[str, str]:
    """The names, within a block, of the layers by which its attention and its feed-forward part give their results.

    They are the last layers as wide as the model, within what is named for attention and elsewhere.
    """
    hidden = model.config.get_text_config().hidden_size
    found = [name for name, module in block.named_modules() if width(module) == hidden]
    attention = [name for name in found if "att" in name.lower()]
    others = [name for name in found if name not in attention]
    if not attention or not others:
        raise RecipeError(
            f"method: {type(block).__name__} has no linear layer by which its "
            f"{'feed-forward part' if attention else 'attention'} gives its result; take lora with target_modules"
        )
    return attention[-1], others[-1]
