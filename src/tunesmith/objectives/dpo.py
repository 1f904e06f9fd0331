"""Learn which of two answers is the better, without a reward model."""

from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Lt

from ..config.record import Fraction, Positive
from ..errors import RecipeError
from ._losses import asked, ranks, value
from ._pairs import level, pairs, watched
from .base import Referred, Targets, objective, over

LossType = Literal[
    "sigmoid", "sigmoid_norm", "hinge", "ipo", "robust", "exo_pair", "nca_pair", "bco_pair", "sppo_hard", "apo_zero",
    "apo_down", "discopop", "aot", "aot_unpaired", "sft",
]  # fmt: skip
USUAL_TAU = 0.05
LOGISTIC = {"sigmoid", "sigmoid_norm", "robust", "exo_pair"}
"""Losses to which beta times the gap is the log-odds that the better answer is preferred."""


@objective("dpo")
class DPO(Referred):
    """Direct preference optimisation: widen the gap between better and worse, seen from the model as it began.

    Rafailov et al. 2023, arXiv:2305.18290, and the losses that others have put in its place.
    """

    loss_type: LossType | tuple[LossType, ...] = "sigmoid"
    """What is made of a pair; of several losses, their sum. `sft` is a term beside others: to say the better answer."""
    loss_weights: tuple[Positive, ...] = ()
    """How much each of several losses counts; 1 each unless given."""
    beta: Positive = 0.1
    """How strongly to stay near the reference."""
    beta_end: Positive | None = None
    """Where beta comes to at the last step, in a straight line; it stays as it is unless this is given. Held-out rows
    are measured with beta."""
    label_smoothing: Annotated[float, Ge(0), Lt(0.5)] = 0.0
    """Share of the pairs that are thought to be the wrong way round; robust and exo_pair need it, and it counts in
    sigmoid, sigmoid_norm, aot and aot_unpaired."""
    discopop_tau: Positive = USUAL_TAU
    """How sharply discopop goes over from one loss to the other."""
    ld_alpha: Fraction | None = None
    """How much of an answer counts that is past the length of the other one; all of it unless given (LD-DPO)."""

    targets: ClassVar[Targets] = "pairs"

    @property
    def losses(self) -> tuple[str, ...]:
        return (self.loss_type,) if isinstance(self.loss_type, str) else self.loss_type

    @property
    def weights(self) -> tuple[float, ...]:
        return self.loss_weights or (1.0,) * len(self.losses)

    def refuse(self):
        wanted = {what for name in self.losses for what in asked(name)}
        names = " and ".join(self.losses)
        smooth = {"robust": "0.1", "exo_pair": "0.001"}
        need = next((name for name in self.losses if name in smooth and not self.label_smoothing), "")
        faults = {
            "objective.loss_type: names no loss; give one, such as sigmoid": not self.losses,
            f"objective.loss_weights: {len(self.weights)} weights for {len(self.losses)} losses ({names}); give one"
            " for each, or none": len(self.weights) != len(self.losses),
            f"objective.label_smoothing: {names} makes nothing of it; leave it out": (
                self.label_smoothing > 0 and "label_smoothing" not in wanted
            ),
            f"objective.discopop_tau: {names} makes nothing of it; leave it out": (
                self.discopop_tau != USUAL_TAU and "discopop_tau" not in wanted
            ),
            f"objective.beta_end: {names} makes nothing of beta; leave it out": (
                self.beta_end is not None and "beta" not in wanted
            ),
            f"objective.label_smoothing: {need} needs the share of pairs that are the wrong way round, above 0; its"
            f" paper takes {smooth.get(need)}": bool(need),
        }
        for sentence, fault in faults.items():
            if fault:
                raise RecipeError(sentence)

    def asks(self, given):
        unranked = given == "partners" and not any("partners" in asked(name) for name in self.losses)
        return super().asks(given) and not unranked

    def values(self, batch, logp, reference):
        return couples(self.counted(logp), self.counted(reference))

    def match(self, values):
        return ranks(values)

    def odds(self, batch, logp, reference, **_):
        """By Bradley and Terry, where one of the losses takes the gap for that."""
        name = next((name for name in self.losses if name in LOGISTIC), None)
        if name is None:
            return None
        gain = self.counted(logp) - self.counted(reference)
        better, worse = pairs(gain.mean() if name == "sigmoid_norm" else gain.sum())
        return self.beta * (better - worse)

    def loss(self, batch, logp, reference, entropy=None, partners=None, progress=0.0):
        beta = self.beta + progress * ((self.beta_end or self.beta) - self.beta)
        now, before = self.counted(logp), self.counted(reference)
        gain = (now - before).sum()
        (better, worse), means = pairs(gain), pairs((now - before).mean())
        known = {"better": better, "worse": worse, "gap": better - worse, "said": pairs(logp.mean())[0]}
        known |= {"better_mean": means[0], "worse_mean": means[1], "beta": beta}
        known |= {"couples": couples(now, before), "partners": partners}
        known |= {"label_smoothing": self.label_smoothing, "discopop_tau": self.discopop_tau}
        parts = [weight * value(name, known) for name, weight in zip(self.losses, self.weights, strict=True)]
        return over(sum(parts[1:], parts[0]), **watched(beta * gain, now.sum(), entropy))

    def counted(self, logp):
        """What counts of the answers' log-probabilities."""
        return logp if self.ld_alpha is None else level(logp, self.ld_alpha)


def couples(now, before):
    """[P, 2, 2] of each pair what is ranked: its gap now and before, and the gains of its two answers."""
    from torch import stack

    (better, worse), (was_better, was_worse) = pairs(now.sum()), pairs(before.sum())
    gaps = stack([better - worse, was_better - was_worse], 1)
    gains = stack([better - was_better, worse - was_worse], 1)
    return stack([gaps, gains], 1)
