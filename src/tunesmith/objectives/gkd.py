"""Learn to say what another model would, where one's own answers lead."""

from typing import ClassVar

from ..config.record import Count, Fraction
from ._online import Online
from .base import objective, over


@objective("gkd")
class GKD(Online):
    """On-policy distillation: the model answers, and brings the chances of every next word of its answer near those of
    a teacher that has read the same; so it learns where it errs itself, and not where given answers go.

    Agarwal et al. 2023, arXiv:2306.13649, of whose mixture this is the share of the student's own answers; `distill` is
    that of given ones. Rewards are not asked for; those that are named are watched.
    """

    teacher: str | None = None
    """The model to learn from, named as model.path is."""
    beta: Fraction = 0.5
    """Which divergence: 0 is the forward Kullback-Leibler divergence, which covers all that the teacher might say; 1
    the reverse one, which keeps to what it says mostly; between lies the generalised Jensen-Shannon divergence. Of
    both models' logits divided by `temperature`, at which answers are drawn."""
    num_generations: Count = 1
    """Answers that the model gives to each prompt."""

    rewarded: ClassVar[bool] = False

    @property
    def at_once(self):
        return self.repeats == 1

    def looks(self):
        return ("divergence",)

    def models(self):
        return {"objective.teacher": self.teacher} if self.teacher else {}

    def advantages(self, rolled):
        return {}

    def loss(self, batch, divergence):
        return over(divergence.token, divergence.weight)
