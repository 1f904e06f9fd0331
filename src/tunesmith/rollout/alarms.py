"""What a person should hear of a policy while it learns: rewards that fail, groups that teach nothing, a policy that
goes astray. Each is said once, and kept for the run's report."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ..objectives.base import Tally

FAR = 0.1
"""Nats by which sampler and trainer may differ over a token."""
EMPTY = 0.5
"""Share of answers that may be empty."""
FAILED = 0.1
"""Share of answers that rewards may fail to score."""
ALIKE = 0.9
"""Share of groups, over the last rollouts, in which all answers may be worth the same."""
LAST = 8
"""Rollouts of which that is the mean; one alone may be chance."""
LONGER = 2.0
"""How many times as long, or as short, as in the first rollout answers may become."""
FEWER = 8.0
"""Tokens by which they must have become so, for three of six are no wonder."""
REPEATED = 0.2
"""By how much the share of repeated stretches may grow."""
AWAY = 25.0
"""Nats that an answer may be away from the model as it began."""


@dataclass
class Alarms:
    """Looks at every rollout."""

    say: Callable[[str], None]
    said: dict[str, str] = field(default_factory=dict)
    """What was said, by its kind."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Why answers could not be scored, by reward, and how many."""
    first: dict[str, float] = field(default_factory=dict)
    """Figures of the first rollout."""
    alike: deque[float] = field(default_factory=lambda: deque(maxlen=LAST))

    def look(self, number: int, found: dict[str, Tally]) -> None:
        """Say what is wrong with a rollout that was not said before."""
        figures = {name: tally.mean() for name, tally in found.items()}
        self.first = self.first or figures
        if "groups_alike" in figures:
            self.alike.append(figures["groups_alike"])
        answers = float(found["completion_length"].count)
        for kind, sentence in (*self.broken(figures, answers), *self.astray(figures)):
            self.tell(kind, number, sentence)

    def apart(self, number: int, mismatch: float) -> None:
        """Say it if sampler and trainer differ by more nats a token than they may."""
        if mismatch > FAR:
            sentence = f"sampler and trainer differ by {mismatch:.2f} nats a token; what is learnt is corrected"
            self.tell("mismatch", number, f"{sentence} up to importance_cap")

    def tell(self, kind: str, number: int, sentence: str) -> None:
        if kind not in self.said:
            self.said[kind] = f"rollout {number}: {sentence}"
            self.say(self.said[kind])

    def broken(self, now: dict[str, float], answers: float) -> Iterator[tuple[str, str]]:
        """What keeps it from learning at all, or from learning what was meant."""
        failed = now.get("rewards/failed", 0.0)
        if failed > FAILED * answers:
            reason, count = next(iter(self.reasons.most_common(1)), ("", 0))
            yield (
                "failed",
                f"{failed:.0f} of {answers:.0f} answers could not be scored, and nothing is learnt from them; most"
                f" often ({count} so far): {reason}",
            )
        if len(self.alike) == LAST and sum(self.alike) > ALIKE * LAST:
            yield (
                "alike",
                f"in {sum(self.alike) / LAST:.0%} of the groups of the last {LAST} rollouts all answers are worth the"
                " same, and nothing is learnt from them; take prompts that are answered well now and then, more"
                " num_generations, or a reward with more than two values",
            )

    def astray(self, now: dict[str, float]) -> Iterator[tuple[str, str]]:
        """What rewards are got by, where it may not be by better answers."""
        length, began = now["completion_length"], self.first["completion_length"]
        if now["empty"] > EMPTY:
            yield (
                "empty",
                f"{now['empty']:.0%} of the answers are empty; the policy has collapsed, or the rewards pay"
                " for silence",
            )
        if abs(length - began) > FEWER and not 1 / LONGER < length / began < LONGER:
            yield (
                "length",
                f"answers have {length:.0f} tokens, where they had {began:.0f} in the first rollout; see whether the"
                " rewards pay for length",
            )
        if now["repetition"] > self.first["repetition"] + REPEATED:
            yield (
                "repetition",
                f"{now['repetition']:.0%} of what is said was said before in the same answer,"
                f" {self.first['repetition']:.0%} in the first rollout; see whether the rewards pay for it",
            )
        if now.get("kl", 0.0) > AWAY:
            yield (
                "kl",
                f"answers are {now['kl']:.0f} nats away from the model as it began; read some, and raise kl_coef or"
                " beta if they only please the rewards",
            )

    def as_json(self) -> dict[str, Any]:
        """What there is to tell."""
        kept = {"said": self.said, "reasons": dict(self.reasons), "first": self.first}
        return kept | {"alike": list(self.alike)}

    def restore(self, told: dict[str, Any]) -> None:
        """Go on with what `as_json` told."""
        self.said, self.first = dict(told["said"]), dict(told["first"])
        self.reasons.clear()
        self.reasons.update(told["reasons"])
        self.alike.clear()
        self.alike.extend(told["alike"])
