"""What a way of delivering is: it writes a tuned model into a folder, and says how far that may be from it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from ..config.registry import Registry

if TYPE_CHECKING:
    from .source import Source

Into = Literal["trained_on", "original"]
"""Into which weights an adapter of a quantised model is merged: those that it was trained on, with what rounding did to
them, or those of the model as it was before."""


class Way:
    """A form in which a tuned model is handed on; its fields are what may be said of it."""

    name: ClassVar[str]
    library: ClassVar[str] = "transformers"
    """What loads it, as model hubs call that."""

    def check(self, source: Source) -> None:
        """Refuse what cannot be delivered so, before weights are read. Raises RecipeError."""

    def write(self, source: Source, folder: Path) -> None:
        """Put everything into a new folder."""
        raise NotImplementedError

    def finish(self, folder: Path) -> str:
        """What is left to do once the folder is proven and in its place; a word about it, if there is one."""
        return ""

    def apart(self) -> float:
        """How far the delivered model may be from the original: nats of KL divergence a token, on average."""
        raise NotImplementedError


way: Registry[Way] = Registry("way of delivering", "tunesmith.delivery")
