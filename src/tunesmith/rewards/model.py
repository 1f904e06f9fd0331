"""What a reward model says of the answer."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from ..config.record import Count
from .base import Reward, Said, Scorer, Turn, Unscored, Values, reward

MOST = 100_000
"""Answers whose scores are remembered."""


@reward("model")
class RewardModel(Reward):
    """The number that a reward model gives the dialogue with the answer: a run of the objective reward, a sequence
    classifier with one output, or a class (`label`) of any other."""

    path: str
    """A run's folder, a model's, or org/name on Hugging Face."""
    label: str | None = None
    """Of a classifier's classes the one that answers are to have: the score is its log-odds, how much likelier than all
    others together. A reward model with one output has none."""
    batch_size: Count = 16
    """Dialogues in one forward pass."""

    def scorer(self, tools):
        if tools is None:
            raise LookupError(f"{self.name} needs tools")
        ask = tools.classifier(self.path, self.batch_size, self.label)
        known: OrderedDict[str, float | Unscored] = OrderedDict()
        return Scorer(lambda said: remembered(said, ask, known))


def remembered(
    said: Sequence[Said], ask: Callable[[list[list[Turn]]], Values], known: OrderedDict[str, float | Unscored]
) -> Values:
    """The number for each answer; what was asked before, or is asked twice, is asked once."""
    keys = [repr((one.messages, one.completion)) for one in said]
    new = {key: one for key, one in zip(keys, said, strict=True) if key not in known}
    if new:
        dialogues = [[*one.messages, {"role": "assistant", "content": one.completion}] for one in new.values()]
        known.update(zip(new, ask(dialogues), strict=True))
    scores = [known[key] for key in keys]
    while len(known) > MOST:
        known.popitem(last=False)
    return scores
