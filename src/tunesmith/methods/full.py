"""Train every weight."""

from typing import ClassVar

from .base import Method, method


@method("full")
class Full(Method):
    """Full fine-tuning: every weight learns."""

    detachable: ClassVar[bool] = False

    def attach(self, model, heads=()):
        return model.requires_grad_(True)
