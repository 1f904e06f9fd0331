"""What an optimizer is: how the gradients of the weights that learn become a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from ..config.registry import Registry
from ..errors import BadEnvironment, RecipeError

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from ..run import Train

ADAM = ("adam_beta1", "adam_beta2", "adam_epsilon")
"""The settings of train that all of Adam's family share; other optimizers have no use for them."""


class Learnt(NamedTuple):
    """A weight that learns, and what an optimizer may know of it."""

    name: str
    weight: nn.Parameter
    rate: float = 1.0
    """What the learning rate is multiplied by."""
    decay: float = 0.0
    inner: bool = False
    """Whether it is a matrix within the model: neither embedding nor head."""
    block: int = 0
    """0 before the model's blocks, then each block's number from 1 on, and behind them one more."""
    rows: int = 1
    """How many of its rows belong together: those of an attention head, in queries and keys."""


class Optim:
    """Change weights by their gradients. All but `make` is for optimizers that want a word in more than their step."""

    name: ClassVar[str]
    package: ClassVar[str] = ""
    """What must be installed; the extra of that name brings it."""
    reads: ClassVar[tuple[str, ...]] = ADAM
    """Which of Adam's settings in train it has a use for."""
    counts: ClassVar[tuple[str, ...]] = ()
    """What it counts beside the states of the weights, in its groups: a resumed run must know it."""
    whole: ClassVar[str] = ""
    """Why it cannot change one weight before the next one's gradient is known; empty if it can."""
    spoils_gradients: ClassVar[bool] = False
    """Whether gradients are something else after its step."""

    def refuse(self, train: Train) -> None:
        """Refuse what does not go together, before anything is read."""
        for key in ADAM:
            if key not in self.reads and getattr(train, key) != type(train).__dataclass_fields__[key].default:  # pyright: ignore[reportAttributeAccessIssue] - a record is a dataclass
                raise RecipeError(f"train.{key}: {self.name} has no use for it; leave it out")
        if train.optimizer_in_backward and self.whole:
            raise RecipeError(f"train.optimizer_in_backward: {self.name} {self.whole}; set it to false")
        if self.package and find_spec(self.package) is None:
            raise BadEnvironment(
                f"train.optim: {self.name} needs {self.package}; pip install 'tunesmith[{self.package}]'"
            )

    def library(self) -> Any:
        """The package, imported."""
        return import_module(self.package)

    def make(self, weights: Sequence[Learnt], train: Train) -> Optimizer:
        """The optimizer over these weights."""
        raise NotImplementedError

    @contextmanager
    def learning(self, optimizer: Optimizer) -> Iterator[None]:
        """Within it, a step's gradient is computed."""
        yield

    @contextmanager
    def settled(self, optimizer: Optimizer) -> Iterator[None]:
        """Within it, weights are what they would be if training ended now; then they are as before, to the bit."""
        yield

    def finish(self, optimizer: Optimizer) -> None:
        """Make of the weights what they are to be when training has ended."""


optimizer: Registry[Optim] = Registry("optimizer", "tunesmith.optimizers")


def nothing(one: Learnt) -> dict[str, Any]:
    return {}


def groups(
    weights: Sequence[Learnt], train: Train, kind: Callable[[Learnt], dict[str, Any]] = nothing
) -> list[dict[str, Any]]:
    """Weights as torch takes them: together if they learn at the same rate, decay alike and are of one `kind`.

    The first group has the usual rate, which is what a run shows.
    """
    found: dict[str, dict[str, Any]] = {}
    for one in sorted(weights, key=lambda one: (one.rate != 1.0, one.rate, -one.decay)):
        more = kind(one)
        alike = {"lr": one.rate * train.learning_rate, "weight_decay": one.decay, **more}
        group = found.setdefault(repr(alike), {"params": [], "names": [], **alike})
        group["params"].append(one.weight)
        group["names"].append(one.name)
    return list(found.values())


def adams(train: Train) -> dict[str, Any]:
    """Adam's settings, as optimizers call them."""
    return {"lr": train.learning_rate, "betas": (train.adam_beta1, train.adam_beta2), "eps": train.adam_epsilon}
