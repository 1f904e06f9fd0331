"""What a sampler is: who draws the answers that a model learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from ..config.registry import Registry

if TYPE_CHECKING:
    from ..run import Run


class Choosy(Protocol):
    """Which words may be drawn."""

    @property
    def top_p(self) -> float: ...
    @property
    def top_k(self) -> int: ...
    @property
    def min_p(self) -> float: ...


class How(Choosy, Protocol):
    """How answers are drawn; documented in objectives/_online.py."""

    @property
    def max_completion_length(self) -> int: ...
    @property
    def temperature(self) -> float: ...
    @property
    def stop(self) -> tuple[str, ...]: ...


@dataclass
class Drawn:
    """One answer."""

    ids: list[int] = field(default_factory=list)
    """Its tokens, the stop token too where it has one."""
    logp: list[float] = field(default_factory=list)
    """Of each the log-probability among all words, at the sampler's temperature."""
    ended: bool = False
    """Whether it came to an end by itself."""


class Drawer(Protocol):
    """Draws answers outside of the model that learns."""

    def __call__(self, prompts: Sequence[list[int]], how: How, seed: int, size: int = 1) -> list[Drawn]:
        """`size` answers to each prompt, by the model as it is now; those to one prompt side by side."""
        ...

    def close(self) -> None:
        """Let go of everything."""


class Pupil(Protocol):
    """The model that learns, as much of it as a drawer must know."""

    @property
    def name(self) -> str:
        """What the recipe calls the model that it began as."""
        ...

    @property
    def base(self) -> Path:
        """The folder of the weights that it began with."""
        ...

    @property
    def folder(self) -> Path:
        """Where what has been learnt may be put down: the run's own folder."""
        ...

    @property
    def dtype(self) -> str:
        """The number format that it computes in, as torch calls it."""
        ...

    @property
    def stops(self) -> set[int]:
        """The tokens that end an answer."""
        ...

    def save(self, folder: Path) -> None:
        """Write what has been learnt until now, as it is written at the end: an adapter, or a whole model."""


class Sampler:
    """What answers are drawn by."""

    name: ClassVar[str]
    half: ClassVar[bool] = False
    """Whether the model that learns draws by weights of 16 bits."""
    repeats: ClassVar[bool] = True
    """Whether the same seed gives the same answers, to the bit."""

    def refuse(self, run: Run, base: Path | None = None) -> None:
        """Refuse what cannot be, before weights are read; with the folder of the base, what its files say too."""

    def open(self, pupil: Pupil, how: How) -> Drawer | None:
        """Who draws; None where the model that learns does so itself."""
        return None


sampler: Registry[Sampler] = Registry("sampler", "tunesmith.samplers")
