"""The model that learns draws its answers itself."""

from typing import ClassVar

from .base import Sampler, sampler


@sampler("exact")
class Exact(Sampler):
    """The weights that learn."""


@sampler("half")
class Half(Sampler):
    """These in 16 bits, which is quicker on a CPU."""

    half: ClassVar[bool] = True
