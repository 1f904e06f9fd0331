"""What was learnt beside the model, as PEFT loads it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ..errors import RecipeError
from .base import Way, way

if TYPE_CHECKING:
    from .source import Source


@way("adapter")
class Adapter(Way):
    """The adapter alone, some megabytes beside the model that it belongs to."""

    library: ClassVar[str] = "peft"

    def check(self, source: Source) -> None:
        if source.adapter is None:
            raise RecipeError(
                f"{source.tuned.folder.path}: holds a whole model and no adapter; deliver it with --to merged"
            )

    def write(self, source: Source, folder: Path) -> None:
        assert source.adapter
        shutil.copytree(source.adapter, folder, dirs_exist_ok=True)

    def apart(self) -> float:
        return 1e-6
