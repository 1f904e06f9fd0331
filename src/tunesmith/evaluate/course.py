"""What is told of a run that learnt from its own answers: what these were worth, and what else became of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from .metrics import Scores

Line = dict[str, float]
"""A line of a run's metrics."""

PERCENT = ("ended", "empty", "repetition", "groups_alike", "clip_ratio")
WORDS = {
    "reward": "reward",
    "reward_std": "its spread within a group",
    "completion_length": "tokens of an answer",
    "ended": "answers that came to an end",
    "empty": "empty answers",
    "repetition": "said before in the same answer",
    "kl": "nats away from the model as it began",
    "groups_alike": "groups in which nothing can be learnt",
    "rewards/failed": "answers that could not be scored",
    "clip_ratio": "tokens whose ratio was clipped",
    "sampler_mismatch": "nats a token, sampler from trainer",
}
"""What is watched, in the order in which it is told."""


def rewarded(scores: Scores | None) -> bool:
    """Whether these figures are of answers and what they are worth."""
    return bool(scores) and "reward_low" in scores.watched


def headline(before: Scores | None, after: Scores) -> str:
    """The result in a sentence."""
    now = after.watched
    change = f"{before.watched['reward']:.3f} → " if rewarded(before) and before else ""
    if not after.n:
        return f"Reward {change}unknown: no answer to a held-out prompt could be scored"
    gain = f"; gain {signed(now['gain'])}, 95% interval {spread(now, 'gain')}" if "gain" in now else ""
    return f"Reward {change}{now['reward']:.3f} on {after.n:,} held-out prompts{gain}"


def measures(names: Sequence[str]) -> dict[str, Callable[[Scores], str]]:
    """How each figure is said, of those that occur; rewards by themselves come behind their sum."""
    own = [name for name in names if name.startswith("rewards/") and name not in WORDS]
    told: dict[str, Callable[[Scores], str]] = {
        "reward": lambda s: f"{s.watched['reward']:.3f} ({spread(s.watched, 'reward')})" if s.n else "unknown",
        "gain, prompt by prompt": lambda s: (
            f"{signed(s.watched['gain'])} ({spread(s.watched, 'gain')})" if "gain" in s.watched else ""
        ),
    }
    for name in (*own, *(name for name in WORDS if name in names and name != "reward")):
        told[words(name)] = lambda s, name=name: figure(name, s.watched.get(name))
    return told | {"prompts": lambda s: f"{s.n:,}"}


def spread(figures: dict[str, float], name: str) -> str:
    return f"{figures[f'{name}_low']:.3f} to {figures[f'{name}_high']:.3f}"


def signed(value: float) -> str:
    return f"{value:+.3f}"


def words(name: str) -> str:
    return WORDS.get(name, name.replace("rewards/", "reward: "))


def figure(name: str, value: float | None) -> str:
    if value is None or math.isnan(value):
        return ""
    if name in PERCENT:
        return f"{value:.1%}"
    digits = {"sampler_mismatch": ".1e", "completion_length": ".1f", "rewards/failed": ".1f"}.get(name, ".3f")
    return f"{value:{digits}}"


def course(lines: Sequence[Line]) -> list[tuple[str, str, str]]:
    """What was watched while it learnt: its name, at the beginning, at the end; means over a fifth of the lines that
    had new answers."""
    heard = [line for line in lines if "completion_length" in line]
    if not heard:
        return []
    part = math.ceil(len(heard) / 5)
    names = dict.fromkeys(name for line in heard for name in line if name in WORDS or name.startswith("rewards/"))
    order = [*(name for name in names if name not in WORDS), *(name for name in WORDS if name in names)]
    begun, ended = heard[:part], heard[-part:]
    return [(words(name), figure(name, mean(begun, name)), figure(name, mean(ended, name))) for name in order]


def mean(lines: Sequence[Line], name: str) -> float | None:
    there = [line[name] for line in lines if name in line and not math.isnan(line[name])]
    return sum(there) / len(there) if there else None


def warnings(lines: Sequence[Line], before: Scores | None, after: Scores | None, alarms: dict[str, Any]) -> list[str]:
    """What a reader should know before the figures are believed."""
    found = list(alarms.get("said", {}).values())
    found += [f"not scored: {count:,}: {why}" for why, count in alarms.get("reasons", {}).items()]
    heard = [line["reward"] for line in lines if "reward" in line]
    if not (heard and rewarded(before) and rewarded(after) and before and after):
        return found
    part = math.ceil(len(heard) / 5)
    first, last = (sum(side) / part for side in (heard[:part], heard[-part:]))
    then, now = before.watched, after.watched
    if last > first and now.get("gain_low", 1.0) <= 0:
        found.append(
            f"the reward rose from {first:.3f} to {last:.3f} on the prompts that were learnt from, and on held-out ones"
            f" the gain may be none ({spread(now, 'gain')}): it may have learnt these prompts alone"
        )
    if now["reward"] > then["reward"]:
        own = [name for name in now if name.startswith("rewards/") and name not in WORDS]
        fell = [name for name in own if now[name] < then.get(name, -math.inf)]
        found += [
            f"{words(name)} fell from {then[name]:.3f} to {now[name]:.3f} while the sum rose: read some answers before"
            " you believe the sum"
            for name in fell
        ]
    return found
