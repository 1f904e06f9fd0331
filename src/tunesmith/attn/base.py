"""What an attention is: the program that computes it, and who sees whom where that is not the model's word alone."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, ClassVar, NamedTuple

from ..config.registry import Registry
from ..errors import RecipeError


class Place(NamedTuple):
    """What a machine has to compute attention with."""

    gpu: tuple[int, int] | None
    """The compute capability of the GPU, if there is one: 9 is Hopper."""
    packages: frozenset[str] = frozenset()
    """What is installed of that which any attention needs."""


class Attention:
    """How attention is computed."""

    name: ClassVar[str]
    needs_gpu: ClassVar[bool] = False
    oldest: ClassVar[int] = 0
    """The first number of the oldest compute capability that it is written for."""
    newest: ClassVar[int] = 99
    """The same of the newest."""
    halves: ClassVar[bool] = False
    """Whether it computes in 16 bits only."""
    package: ClassVar[str] = ""
    """What must be installed, as it is imported."""
    command: ClassVar[str] = ""
    """How to get it."""

    def lacks(self, place: Place, halves: bool) -> str:
        """Why it cannot be had on a machine, where weights are held in 16 bits or not; nothing if it can."""
        if self.needs_gpu and place.gpu is None:
            return "needs a GPU; on a CPU take auto"
        if place.gpu and not self.oldest <= place.gpu[0] <= self.newest:
            return f"is not written for a GPU of compute capability {place.gpu[0]}.{place.gpu[1]}; take auto"
        if self.package and self.package not in place.packages:
            return f"needs {self.package}, which is not installed: {self.command}; or take auto"
        if self.halves and not halves:
            return "computes in 16 bits, and the weights are held in 32; set model.precision=bf16, or take auto"
        return ""

    def check(self, halves: bool = True) -> None:
        """Refuse what cannot be done here, before anything is read."""
        if why := self.lacks(here(), halves):
            raise RecipeError(f"model.attn: {self.name} {why}")

    def change(self, config: Any) -> None:
        """Have a model of this config, whose `dtype` is that of its weights, made with such attention."""
        self.check(in_halves(config))
        config._attn_implementation = self.name


attn: Registry[Attention] = Registry("attn", "tunesmith.attn")


def here() -> Place:
    """What this machine has."""
    import torch

    gpu = torch.cuda.get_device_capability() if torch.cuda.is_available() else None
    packages = {one.package for one in attn.all().values() if one.package}
    return Place(gpu, frozenset(name for name in packages if find_spec(name)))


def in_halves(config: Any) -> bool:
    """Whether weights of a config's `dtype` are of 16 bits."""
    return getattr(config.dtype, "itemsize", 4) == 2
