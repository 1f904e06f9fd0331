"""Train some of the model's own blocks."""

from typing import ClassVar

from ..config.record import Count
from ..errors import RecipeError
from .base import Method, largest_list, method


@method("freeze")
class Freeze(Method):
    """Freeze tuning: only the last blocks learn, and a new head if there is one."""

    num_layers: Count = 2
    """How many blocks learn, counted from the output."""

    detachable: ClassVar[bool] = False

    def attach(self, model, heads=()):
        blocks = largest_list(model)
        if self.num_layers > len(blocks):
            raise RecipeError(f"method.freeze.num_layers: the model has {len(blocks)} blocks (got {self.num_layers})")
        model.requires_grad_(False)
        for module in [*blocks[-self.num_layers :], *(model.get_submodule(head) for head in heads)]:
            module.requires_grad_(True)
        return model
