"""What a method is: a choice of which parameters learn."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ..config.registry import Registry
from ..errors import RecipeError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Method:
    """Make a model trainable in part; the objective never learns which part."""

    name: ClassVar[str]
    detachable: ClassVar[bool] = True
    """Whether the untouched model can still be run by switching the method off; what is saved is then an adapter."""

    def attach(self, model: PreTrainedModel, heads: tuple[str, ...] = ()):
        """Return the model with just those parameters trainable that this method trains.

        `heads` names modules that are new, and so are trained and saved whole whatever the method.
        """
        raise NotImplementedError


method: Registry[Method] = Registry("method", "tunesmith.methods")


def largest_list(model):
    """The model's blocks: of all its module lists, the one with the most parameters."""
    from torch.nn import ModuleList

    lists = [module for module in model.modules() if isinstance(module, ModuleList)]
    if not lists:
        raise RecipeError(f"method: needs a model made of blocks; {type(model).__name__} has none")
    return max(lists, key=lambda blocks: sum(weight.numel() for weight in blocks.parameters()))
