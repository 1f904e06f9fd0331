"""What a precision is: how the numbers of a model's weights are held in memory."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..config.record import record
from ..config.registry import Registry
from ..errors import BadEnvironment, RecipeError

if TYPE_CHECKING:
    import torch
    from torch import nn

Format = Literal["auto", "fp32", "bf16", "fp16"]
FORMATS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


class Precision:
    """How weights are held. Those of a quantised model stay as they are: only what stands beside them learns."""

    name: ClassVar[str]
    quantised: ClassVar[bool] = False
    rounds: ClassVar[bool] = False
    """Whether what is computed is rounded to few bits as well, and not the weights alone."""
    package: ClassVar[str] = ""
    """What must be installed; the extra has its name."""

    def check(self) -> None:
        """Refuse what cannot be done here, before anything is read."""
        self.dtype()
        require(self.package, f"model.precision: {self.name}")

    def dtype(self) -> torch.dtype:
        """The number format of what is not quantised, and of what is computed."""
        raise NotImplementedError

    def config(self, skip: list[str]) -> Any:
        """What transformers quantises by as it reads the weights; it leaves the modules in `skip` as they are."""
        return None

    def fits(self, layers: dict[str, nn.Linear]) -> None:
        """Refuse layers that cannot be quantised so; they have sizes, and no weights yet."""

    def room(self, count: int, row: int) -> tuple[float, float]:
        """How much room a matrix of so many numbers takes, with so many a row: its codes, and what they are scaled
        by."""
        raise NotImplementedError

    def quantise(self, model, skip: list[str]) -> None:
        """Quantise in place what transformers has read, where it has no way of its own."""


@record
class Quantised(Precision):
    """Linear layers in few bits; embeddings, norms and heads stay whole."""

    quantised: ClassVar[bool] = True

    compute_dtype: Format = "auto"
    """Number format of what is computed, and of all that is not quantised; auto is bf16 on a GPU that has it, else
    fp32."""

    def dtype(self) -> torch.dtype:
        return number_format(self.compute_dtype, "model.precision.compute_dtype")


def require(package: str, who: str) -> None:
    """Refuse without a package, with the command that gets it."""
    if package and find_spec(package) is None:
        raise BadEnvironment(f"{who} needs {package}, which is not installed: pip install 'tunesmith[{package}]'")


def number_format(word: Format, key: str) -> torch.dtype:
    """The number format that a word means: as asked for, or the best that this machine computes in hardware."""
    import torch

    if word == "fp16" and not torch.cuda.is_available():
        raise RecipeError(f"{key}: fp16 needs a GPU; on a CPU use fp32 or bf16")
    if word == "auto":
        word = "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "fp32"
    return getattr(torch, FORMATS[word])


def linear_layers(model, skip: list[str]) -> Iterator[tuple[str, nn.Linear]]:
    """A model's plain linear layers, but for those whose name, or the end of whose path, is in `skip`."""
    from torch.nn import Linear

    for path, module in model.named_modules():
        if type(module) is Linear and path.rpartition(".")[2] not in skip and path not in skip:
            yield path, module


precision: Registry[Precision] = Registry("precision", "tunesmith.precision")
