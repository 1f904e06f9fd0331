"""What an objective is: a loss over what the model makes of a batch.

Letters of shapes: N answers in a batch, M tokens to be learnt, C classes.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..config.record import record
from ..config.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from ..data.rendering.tokens import Tokens
    from ..data.task import Task


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


Targets = Literal["answers", "pairs", "ranked", "liked", "prompts", "text", "label", "mixed"]
GIVEN = ("batch", "baseline", "partners", "progress", "whole")
"""What a loss may ask for that no policy is looked at for."""


class Objective:
    """Judges a batch. The names of its loss's arguments say what it looks at."""

    name: ClassVar[str]
    targets: ClassVar[Targets] = "answers"
    """What of an example is learnt: the assistant's answer, the better answer beside the worse one, which of the two is
    the better and nothing of how they are written, an answer and whether it was liked, what the model itself says to
    the prompt, the whole text, the label, or answers of some rows and labels of others."""

    def loss(self, *batch: Any, **looks: Any) -> Loss:
        """`loss(self, batch, logp, ...)`: a batch's summed loss and how many things it is of; never a mean."""
        raise NotImplementedError

    def looks(self) -> tuple[str, ...]:
        """What `loss` asks of the policy: `logp`, `score`, or `reference`, what logp was before anything was learnt."""
        return looked_at(self.loss)

    def asks(self, given: str) -> bool:
        """Whether `loss` asks for one of these, of a whole step before any of it is judged: `baseline`, which `measure`
        makes; `partners`, which `values` and `match` make; `whole`, how much of each task there is, by `amount`;
        `progress`, the share of the run's steps that are taken."""
        return given in inspect.signature(self.loss).parameters

    def measure(self, *batch: Any, **looks: Any) -> Tally:
        """`measure(self, batch, logp, ...)`: of sequences whose answers belong to other prompts, what `baseline` is the
        mean of."""
        raise NotImplementedError

    def values(self, *batch: Any, **looks: Any) -> Tensor:
        """`values(self, batch, logp, ...)`: a row for each thing judged; `match` sees those of a whole step."""
        raise NotImplementedError

    def match(self, values: Tensor) -> Tensor:
        """What each thing is compared with, a row each, given the values of all things in a step."""
        raise NotImplementedError

    def amount(self, tokens: Tokens) -> tuple[str, float]:
        """A sequence's task, and how much of it there is to be judged."""
        raise NotImplementedError

    def fits(self, tasks: Sequence[Task]) -> None:
        """Raise RecipeError for options that these tasks make nothing of; asked before a model is read."""

    def refuse(self) -> None:
        """Raise RecipeError for options that do not go together; asked before anything is read."""

    def outputs(self, labels: tuple[str, ...]) -> tuple[str, ...]:
        """The names of what a head beside the language model's says, if there is to be one, given the rows' labels."""
        return ()

    def models(self) -> dict[str, str]:
        """Other models that it looks at, by the settings that name them."""
        return {}

    def odds(self, *batch: Any, **looks: Any) -> Tensor | None:
        """`odds(self, batch, ...)`: of each pair, the log-odds that its first answer is the better, where a model's
        judgement says so much."""
        return None

    @property
    def writes(self) -> bool:
        """Whether what it makes writes answers; else it only tells what it thinks of texts."""
        return self.targets not in ("label", "ranked")

    @property
    def needs(self) -> tuple[str, ...]:
        """What every example must say beside its answers: `agreement`, how many raters agree."""
        return ()

    @property
    def rendered(self) -> int:
        """How many sequences an example is rendered as."""
        return 2 if self.targets in ("pairs", "ranked") else 1

    @property
    def repeats(self) -> int:
        """How many steps, one after another, learn from the same examples."""
        return 1

    @property
    def side_by_side(self) -> int:
        """How many sequences are judged together."""
        return self.rendered


objective: Registry[Objective] = Registry("objective", "tunesmith.objectives")


@record
class Referred(Objective):
    """An objective that judges a model beside another: what it was, or the one that is named."""

    reference: str | None = None
    """The model to compare with, named as model.path is; the one that is trained, as it stands before the first step,
    unless it is given. It must know the same tokens, and is in memory before the other is, never beside it."""


def looked_at(judge: Callable[..., Any]) -> tuple[str, ...]:
    """What a loss, or a part of it, asks of the policy: the names of its arguments."""
    return tuple(name for name in inspect.signature(judge).parameters if name not in GIVEN)


class Beside(tuple[str, ...]):
    """Names of what a head says that stands beside the language model's, and not in its place."""


def over(values: Tensor, weight: Tensor | None = None, **metrics: Tensor | Tally) -> Loss:
    """The loss of a row of values, one for each thing judged, by how much each counts, and the means to watch."""
    watched = {name: row if isinstance(row, Tally) else whole(row) for name, row in metrics.items()}
    if weight is None:
        return Loss(values.sum(), values.numel(), watched)
    return Loss((values * weight).sum(), weight.sum(), watched)


def whole(row: Tensor) -> Tally:
    """The tally of all values."""
    return Tally(row.detach().float().sum(), row.numel())


def some(row: Tensor, which: Tensor) -> Tally:
    """The tally of some values."""
    return Tally((row.detach().float() * which).sum(), which.sum())
