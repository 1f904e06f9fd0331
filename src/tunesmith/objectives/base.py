"""What an objective is: a loss over what the model makes of a batch.

Letters of shapes: N answers in a batch, M tokens to be learnt, C classes.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..config.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Tally:
    """A sum and the number of things in it. Tallies add; only their reader divides."""

    sum: Tensor | float
    count: Tensor | float

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.sum + other.sum, self.count + other.count)

    def mean(self) -> float:
        return float(self.sum / self.count) if self.count else float("nan")


@dataclass
class Loss(Tally):
    """A tally to go down, and others to watch."""

    metrics: dict[str, Tally] = field(default_factory=dict)

    def tallies(self) -> dict[str, Tally]:
        """The loss, without its graph, and all that is watched."""
        return {
            "loss": Tally(self.sum if isinstance(self.sum, int | float) else self.sum.detach(), self.count),
            **self.metrics,
        }


@dataclass
class LogProbs:
    """The log-probability of each token to be learnt, and the answer it is of."""

    token: Tensor  # [M] float32
    owner: Tensor  # [M] int64
    answers: int
    weight: Tensor | None = None  # [M] float32 how much each counts; none where each counts 1

    def __sub__(self, other: LogProbs) -> LogProbs:
        """How much likelier each token is here than there."""
        return self.having(self.token - other.token)

    def having(self, token: Tensor) -> LogProbs:
        """Other values of the same tokens."""
        return replace(self, token=token)

    def sum(self) -> Tensor:
        """[N] the log-probability of each whole answer."""
        return self.token.new_zeros(self.answers).index_add(0, self.owner, self.token)

    def mean(self) -> Tensor:
        """[N] the same for a token of it."""
        return self.sum() / self.owner.bincount(minlength=self.answers).clamp(min=1)


Targets = Literal["answers", "pairs", "liked", "prompts", "text", "label"]


class Objective:
    """Judges a batch. The names of its loss's arguments say what it looks at."""

    name: ClassVar[str]
    targets: ClassVar[Targets] = "answers"
    """What of an example is learnt: the assistant's answer, the better answer beside the worse one, an answer and
    whether it was liked, what the model itself says to the prompt, the whole text, or the label."""

    def loss(self, *batch: Any, **looks: Any) -> Loss:
        """`loss(self, batch, logp, ...)`: a batch's summed loss and how many things it is of; never a mean."""
        raise NotImplementedError

    def looks(self) -> tuple[str, ...]:
        """What `loss` asks of the policy: `logp`, `score`, or `reference`, what logp was before anything was learnt."""
        return tuple(name for name in inspect.signature(self.loss).parameters if name not in ("batch", "baseline"))

    def measures_first(self) -> bool:
        """Whether `loss` asks for a `baseline`, which `measure` makes of a whole step before any of it is judged."""
        return "baseline" in inspect.signature(self.loss).parameters

    def measure(self, *batch: Any, **looks: Any) -> Tally:
        """`measure(self, batch, logp, ...)`: of sequences whose answers belong to other prompts, what `baseline` is the
        mean of."""
        raise NotImplementedError

    def outputs(self, labels: tuple[str, ...]) -> tuple[str, ...]:
        """The names of what a head beside the language model's says, if there is to be one, given the rows' labels."""
        return ()

    @property
    def rendered(self) -> int:
        """How many sequences an example is rendered as."""
        return 2 if self.targets == "pairs" else 1

    @property
    def side_by_side(self) -> int:
        """How many sequences are judged together."""
        return self.rendered


objective: Registry[Objective] = Registry("objective", "tunesmith.objectives")


def over(values: Tensor, weight: Tensor | None = None, **metrics: Tensor) -> Loss:
    """The loss of a row of values, one for each thing judged, by how much each counts, and the means to watch."""
    watched = {name: Tally(row.detach().float().sum(), row.numel()) for name, row in metrics.items()}
    if weight is None:
        return Loss(values.sum(), values.numel(), watched)
    return Loss((values * weight).sum(), weight.sum(), watched)
