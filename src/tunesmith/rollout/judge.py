"""A judge at work: which of two answers is better, how good one is, how one could be better; each asked once only."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ..cache import cache
from ..files import private, write
from ..rewards._settings import Judge
from ..rewards.base import Turn, Unscored
from .question import Question, comparison, critique, rating, revision
from .server import Account, Server

log = logging.getLogger("tunesmith")

AT_ONCE = 16
"""Questions that are asked together; so many are asked again if the process is killed."""
Answer = str | int | Unscored


class Speaker(Protocol):
    """Whoever answers questions."""

    account: Account

    def identity(self) -> dict[str, Any]: ...
    def ask(self, questions: Sequence[Question]) -> list[Answer]: ...
    def check(self) -> None: ...


class Pair(NamedTuple):
    """Two answers to the same dialogue."""

    turns: tuple[Turn, ...]
    one: str
    other: str


class Verdict(NamedTuple):
    """What a judge says of a pair, asked in both orders: whether the answer shown first is the better."""

    forth: bool | None
    """With `one` shown first."""
    back: bool | None
    """With `other` shown first."""
    why: str = ""
    """Why there is no verdict."""

    @property
    def better(self) -> int | None:
        """0 for `one`, 1 for `other`; None for a tie: each was preferred where it stood first, or where second."""
        return None if self.forth == self.back else 0 if self.forth else 1

    @property
    def there(self) -> bool:
        return self.forth is not None and self.back is not None


@dataclass
class AtWork:
    """A judge, and what it has said before, kept on the disk: not the key, nor anything that is made of it."""

    settings: Judge
    speaker: Speaker
    folder: Path = field(default_factory=lambda: cache() / "judge")

    @property
    def account(self) -> Account:
        return self.speaker.account

    def compare(self, pairs: Sequence[Pair]) -> list[Verdict]:
        """Ask of each pair in both orders."""
        told = self.settings.rubric, self.settings.reason
        forth = [comparison(pair.turns, pair.one, pair.other, *told) for pair in pairs]
        back = [comparison(pair.turns, pair.other, pair.one, *told) for pair in pairs]
        said = self.ask([question for both in zip(forth, back, strict=True) for question in both])
        return [verdict(one, other) for one, other in zip(said[::2], said[1::2], strict=True)]

    def rate(self, answers: Sequence[tuple[Sequence[Turn], str]], lowest: int, highest: int) -> list[float | Unscored]:
        """How good each answer is, by the rubric."""
        told, span = (self.settings.rubric, self.settings.reason), (lowest, highest)
        said = self.ask([rating(turns, text, *told, span) for turns, text in answers])
        return [one if isinstance(one, Unscored) else float(one) for one in said]

    def revise(self, answers: Sequence[tuple[Sequence[Turn], str]]) -> list[str | Unscored]:
        """Each answer, criticised by the constitution and written anew (Bai et al. 2022, arXiv:2212.08073)."""
        found = self.ask([critique(turns, text, self.settings.principles) for turns, text in answers])
        there = [n for n, one in enumerate(found) if not isinstance(one, Unscored)]
        made = self.ask([revision(*answers[n], str(found[n])) for n in there])
        new = dict(zip(there, made, strict=True))
        return [one if isinstance(one, Unscored) else str(one) for one in (new.get(n, f) for n, f in enumerate(found))]

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """The verdict on each. What was asked before is not asked again; what got no answer is not kept."""
        keys = [self.key(question) for question in questions]
        known: dict[str, Answer] = {key: kept for key in dict.fromkeys(keys) if (kept := self.kept(key)) is not None}
        self.account.count(kept=len(known))
        new = iter({key: one for key, one in zip(keys, questions, strict=True) if key not in known}.items())
        while part := dict(islice(new, AT_ONCE)):
            for key, answer in zip(part, self.speaker.ask([*part.values()]), strict=True):
                known[key] = answer
                if not isinstance(answer, Unscored):
                    self.keep(key, answer)
            self.speaker.check()
        return [known[key] for key in keys]

    def key(self, question: Question) -> str:
        """A name for a question to this judge, which another question or another judge has not."""
        judge = self.settings
        told = [self.identity, judge.temperature, judge.max_tokens, question.turns, question.schema]
        return sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    @cached_property
    def identity(self) -> dict[str, Any]:
        return self.speaker.identity()

    def kept(self, key: str) -> str | int | None:
        try:
            return json.loads((self.folder / key[:2] / f"{key}.json").read_text(encoding="utf-8"))["verdict"]
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def keep(self, key: str, answer: str | int) -> None:
        private(cache())
        private(self.folder)
        write(self.folder / key[:2] / f"{key}.json", json.dumps({"verdict": answer}))

    @property
    def fingerprint(self) -> str:
        """A name for who judges, by what, and how it is asked; another one is another judge, whose calibration says
        nothing of this."""
        judge = self.settings
        asked = comparison((), "", "", judge.rubric, judge.reason)
        told = [self.identity, judge.temperature, judge.max_tokens, asked.turns, asked.schema]
        return sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def verdict(forth: Answer, back: Answer) -> Verdict:
    for one in (forth, back):
        if isinstance(one, Unscored):
            return Verdict(None, None, str(one))
    return Verdict(forth == "A", back == "A")


def open_judge(judge: Judge, say: Callable[[str], None] = log.info) -> AtWork:
    """The judge of these settings, ready to be asked."""
    judge.refuse()
    account = Account()
    if judge.url:
        return AtWork(judge, Server(judge, account))
    from .by_score import open_scores, scores
    from .local import Local

    say(f"judge: loading {judge.model}")
    if scores(judge.model):
        return open_scores(judge, account)
    return AtWork(judge, Local(judge, account))
