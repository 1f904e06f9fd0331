"""Losses over pairs: each a few lines of arithmetic that ask by name for what they look at.

better, worse   [P] how much likelier each answer of a pair has become than the reference has it, as a logarithm
gap             [P] the difference of the two
better_mean, worse_mean   [P] the same for a token of the answer
said            [P] the log-probability of a token of the better answer, as a mean
couples, partners   [P, 2, 2] see `ranked`
beta, label_smoothing, discopop_tau   options of `dpo`
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

LOSSES: dict[str, Callable[..., Tensor]] = {}
"""Every loss by the name that TRL has for it."""


def loss(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    LOSSES[function.__name__] = function
    return function


def asked(name: str) -> set[str]:
    """What a loss looks at."""
    return set(inspect.signature(LOSSES[name]).parameters)


def value(name: str, known: Mapping[str, Any]) -> Tensor:
    """[P] a loss of each pair, given all that is known of them."""
    return LOSSES[name](**{what: known[what] for what in asked(name)})


def smoothed(gap: Tensor, share: float) -> Tensor:
    """The logistic loss, when this share of the pairs is thought to be the wrong way round."""
    from torch.nn.functional import logsigmoid

    return -(1 - share) * logsigmoid(gap) - share * logsigmoid(-gap)


@loss
def sigmoid(gap, beta, label_smoothing):
    """Rafailov et al. 2023, arXiv:2305.18290; smoothed, the conservative DPO of Mitchell 2023."""
    return smoothed(beta * gap, label_smoothing)


@loss
def sigmoid_norm(better_mean, worse_mean, beta, label_smoothing):
    """The same of the gain of a token, so that long answers count no more; Lambert et al. 2024, arXiv:2411.15124."""
    return smoothed(beta * (better_mean - worse_mean), label_smoothing)


@loss
def hinge(gap, beta):
    """Once the gap is wide enough, it is left alone; Zhao et al. 2023, arXiv:2305.10425."""
    return (1 - beta * gap).relu()


@loss
def ipo(better_mean, worse_mean, beta):
    """The gap is to be 1 / (2 beta), no more and no less; Azar et al. 2023, arXiv:2310.12036, eq. 17.

    Of the gain of a token, which is what the paper's authors say that they computed (TRL's documentation).
    """
    return (better_mean - worse_mean - 1 / (2 * beta)) ** 2


@loss
def robust(gap, beta, label_smoothing):
    """Without bias where that share of the pairs is flipped; Chowdhury et al. 2024, arXiv:2403.00409."""
    from torch.nn.functional import logsigmoid

    kept, flipped = -logsigmoid(beta * gap), -logsigmoid(-beta * gap)
    return ((1 - label_smoothing) * kept - label_smoothing * flipped) / (1 - 2 * label_smoothing)


@loss
def exo_pair(gap, beta, label_smoothing):
    """The reverse divergence between what the policy prefers and smoothed labels; Ji et al. 2024, arXiv:2402.00856."""
    from math import log

    from torch.nn.functional import logsigmoid

    win, lose = logsigmoid(beta * gap), logsigmoid(-beta * gap)
    return win.exp() * (win - log(1 - label_smoothing)) + lose.exp() * (lose - log(label_smoothing))


@loss
def nca_pair(better, worse, beta):
    """Raises the better answer by itself, and lowers both a little; Chen et al. 2024, arXiv:2402.05369."""
    from torch.nn.functional import logsigmoid

    return -logsigmoid(beta * better) - 0.5 * logsigmoid(-beta * better) - 0.5 * logsigmoid(-beta * worse)


@loss
def bco_pair(better, worse, beta):
    """Tells good answers from bad ones, each by itself; Jung et al. 2024, arXiv:2404.04656, without its shift."""
    from torch.nn.functional import logsigmoid

    return -logsigmoid(beta * better) - logsigmoid(-beta * worse)


@loss
def sppo_hard(better, worse, beta):
    """Each answer's gain is to be half of 1 / beta, up or down; Wu et al. 2024, arXiv:2405.00675, eq. 4.7."""
    return (better - 0.5 / beta) ** 2 + (worse + 0.5 / beta) ** 2


@loss
def apo_zero(better, worse, beta):
    """Raises the better and lowers the worse; D'Oosterlinck et al. 2024, arXiv:2408.06266, eq. 7."""
    return 1 - (beta * better).sigmoid() + (beta * worse).sigmoid()


@loss
def apo_down(better, gap, beta):
    """Lowers both, the worse more: for a model that is better than its data; the same paper, eq. 8."""
    return (beta * better).sigmoid() + 1 - (beta * gap).sigmoid()


@loss
def discopop(gap, beta, discopop_tau):
    """Between the logistic and the exponential loss, by the gap itself; Lu et al. 2024, arXiv:2406.08414, eq. 5."""
    from torch.nn.functional import logsigmoid

    share = (beta * gap / discopop_tau).sigmoid()
    return -logsigmoid(beta * gap) * (1 - share) + (-beta * gap).exp() * share


@loss
def aot(couples, partners, beta, label_smoothing):
    """The gaps of all pairs are to stand above the reference's gaps, rank by rank; Melnyk et al. 2024,
    arXiv:2406.05882."""
    return ranked(couples[:, 0], partners[:, 0], beta, label_smoothing)


@loss
def aot_unpaired(couples, partners, beta, label_smoothing):
    """The gains of all better answers are to stand above those of all worse ones, rank by rank; the same paper."""
    return ranked(couples[:, 1], partners[:, 1], beta, label_smoothing)


@loss
def sft(said):
    """To say the better answer: a term beside others, as Pang et al. 2024 have it, arXiv:2404.19733."""
    return -said


def ranked(own: Tensor, met: Tensor, beta: float, share: float) -> Tensor:
    """Of two values of each pair, [P, 2], the first should be above the second value of the pair of the same rank.

    `met` has for either value the other one of that rank, over the whole step and known beforehand, so that a pair
    needs no other to be judged. Both sides see the same differences: together they count once, and slope as they are.
    """
    both = smoothed(beta * (own[:, 0] - met[:, 0]), share) + smoothed(beta * (met[:, 1] - own[:, 1]), share)
    return both - both.detach() / 2


def ranks(couples: Tensor) -> Tensor:
    """What each value of some couples, [P, K, 2], meets: the other value of the same rank."""
    places = couples.argsort(dim=0, stable=True).argsort(dim=0)
    return couples.sort(0).values.flip(-1).gather(0, places)
