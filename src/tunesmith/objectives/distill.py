"""Learn to say what another model would."""

from ..config.record import Fraction, Positive
from .base import Objective, objective, over


@objective("distill")
class Distill(Objective):
    """Distillation: bring the chances of every next word, at each token of the given answers, near a teacher's.

    Hinton et al. 2015, arXiv:1503.02531; divergences of Agarwal et al. 2023 (GKD), arXiv:2306.13649. The teacher has
    the same vocabulary, answers as it is, and learns nothing.
    """

    teacher: str | None = None
    """The model to learn from, named as model.path is."""
    beta: Fraction = 0.5
    """Which divergence: 0 is the forward Kullback-Leibler divergence, which covers all that the teacher might say; 1
    the reverse one, which keeps to what it says mostly; between lies the generalised Jensen-Shannon divergence."""
    temperature: Positive = 1.0
    """Both models' logits are divided by this first; above 1, unlikely words count more."""

    hard: Fraction = 0.0
    """Share of the loss that is the given answers' own, as sft has it; with the model itself as its teacher, at beta 0,
    that is learning without forgetting (Li and Hoiem 2016, arXiv:1606.09282): new answers, near what it was."""

    def looks(self):
        return ("divergence", "logp") if self.hard else ("divergence",)

    def models(self):
        return {"objective.teacher": self.teacher} if self.teacher else {}

    def loss(self, batch, divergence, logp=None):
        if logp is None:
            return over(divergence.token, divergence.weight)
        own = -logp.token
        both = self.hard * own + (1 - self.hard) * divergence.token
        return over(both, divergence.weight, divergence=divergence.token, answers=own)
