"""What an attention is: the program that computes it, and who sees whom where that is not the model's word alone."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, ClassVar

from ..config.registry import Registry
from ..errors import RecipeError


class Attention:
    """How attention is computed."""

    name: ClassVar[str]
    needs_gpu: ClassVar[bool] = False
    package: ClassVar[str] = ""
    """What must be installed, as it is imported."""
    command: ClassVar[str] = ""
    """How to get it."""

    def check(self) -> None:
        """Refuse what cannot be done here, before anything is read."""
        import torch

        if self.needs_gpu and not torch.cuda.is_available():
            raise RecipeError(f"model.attn: {self.name} needs a GPU; on a CPU take auto")
        if self.package and find_spec(self.package) is None:
            raise RecipeError(
                f"model.attn: {self.name} needs {self.package}, which is not installed: {self.command}; or take auto"
            )

    def change(self, config: Any) -> None:
        """Have a model of this config made with such attention."""
        self.check()
        config._attn_implementation = self.name


attn: Registry[Attention] = Registry("attn", "tunesmith.attn")
