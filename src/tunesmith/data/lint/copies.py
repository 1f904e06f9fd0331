"""Rows that say the same again, or something else of the same."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from .base import Item, Origin, Rule, Said, Watch, Words, rule


class Hashes:
    """What rows ask and answer, as two hashes each."""

    def __init__(self, rows: Sequence[tuple[int, Item]] = ()) -> None:
        self.number = array("q", [number for number, _ in rows])
        self.asked = array("Q", [item.asked for _, item in rows])
        self.answered = array("Q", [item.answered for _, item in rows])

    def extend(self, other: Hashes, first: int) -> None:
        """Add those of rows that come after the first so many."""
        self.number.frombytes((np.array(other.number) + first).tobytes())
        self.asked += other.asked
        self.answered += other.answered

    def sorted(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Numbers, prompts and answers of the rows, like ones side by side, the first one first."""
        number, asked, answered = (np.array(part) for part in (self.number, self.asked, self.answered))
        order = np.lexsort((number, answered, asked))
        return number[order], asked[order], answered[order]


Pairs = Sequence[tuple[np.ndarray, np.ndarray]]
"""Rows of several splits, and of each another row that shows what is wrong with it."""


def in_order(found: Pairs, say: Callable[[Origin, int], Said], origin: Origin) -> Iterator[tuple[int, Words]]:
    """Rows as they stand in the files, each with what makes its sentence."""
    if not found:
        return
    rows, others = map(np.concatenate, zip(*found, strict=True))
    order = np.argsort(rows)
    for row, other in zip(rows[order].tolist(), others[order].tolist(), strict=True):
        yield row, partial(say, origin, other)


@rule("duplicate")
class Duplicate(Rule):
    """The row says exactly what an earlier one of its split says."""

    zh = "该行与同一划分中较早的一行完全相同。"
    explained = Said(
        "A row that comes twice counts twice and is learnt by heart sooner. Keep one, unless you mean it.",
        "重复的行会被重复计算，也更容易被死记。若非有意，请只保留一份。",
    )

    def watch(self, renderer, targets):
        return Duplicates()


class Apart(Watch):
    """Remembers what the rows of each split ask and answer."""

    def __init__(self) -> None:
        self.split: dict[str, Hashes] = {}

    def wanted(self, item: Item) -> bool:
        return True

    def gather(self, items: Sequence[Item]) -> dict[str, Hashes]:
        found: dict[str, list[tuple[int, Item]]] = {}
        for number, item in enumerate(items):
            if item.asked and self.wanted(item):
                found.setdefault(item.split, []).append((number, item))
        return {split: Hashes(rows) for split, rows in found.items()}

    def take(self, gathered: dict[str, Hashes], first: int) -> None:
        for split, hashes in gathered.items():
            self.split.setdefault(split, Hashes()).extend(hashes, first)


class Duplicates(Apart):
    def end(self, origin: Origin) -> Iterator[tuple[int, Words]]:
        found = []
        for split in self.split.values():
            number, asked, answered = split.sorted()
            again = np.flatnonzero((asked[1:] == asked[:-1]) & (answered[1:] == answered[:-1])) + 1
            found.append((number[again], number[again - 1]))
        return in_order(found, same_as, origin)


def same_as(origin: Origin, row: int) -> Said:
    return Said(f"is the same as {origin(row)}", f"与 {origin(row)} 相同")


@rule("conflict")
class Conflict(Rule):
    """The same prompt is answered differently, or the same text labelled differently, in another row of the split."""

    zh = "同一提示在同一划分的另一行中有不同的答案，或同一文本有不同的标签。"
    explained = Said(
        "The model is to say both, and learns to be unsure. Of labels one is wrong; of open questions several answers"
        " may be meant. Rows of preferences are not looked at.",
        "模型被要求两者都说，于是学会犹豫。若是标签，其中必有一个错误；若是开放问题，可能本来就有多个答案。"
        "偏好数据不作此检查。",
    )

    def watch(self, renderer, targets):
        return Conflicts()


class Conflicts(Apart):
    def wanted(self, item: Item) -> bool:
        example = item.example
        if example is None or example.liked is not None:
            return False
        return len(example.answers) == 1 or example.label is not None

    def end(self, origin: Origin) -> Iterator[tuple[int, Words]]:
        found = []
        for split in self.split.values():
            number, asked, answered = split.sorted()
            if not len(number):
                continue
            starts = np.flatnonzero(np.r_[True, asked[1:] != asked[:-1]])
            sizes = np.diff(starts, append=len(asked))
            first, last = (np.repeat(ends, sizes) for ends in (starts, starts + sizes - 1))  # of a row's prompt
            mixed = np.flatnonzero(answered[first] != answered[last])
            other = np.where(answered[first] != answered, first, last)  # they stand by their answers
            found.append((number[mixed], number[other[mixed]]))
        return in_order(found, otherwise, origin)


def otherwise(origin: Origin, row: int) -> Said:
    return Said(f"is answered differently in {origin(row)}", f"与 {origin(row)} 的答案不同")


@rule("leakage")
class Leakage(Rule):
    """A row that is trained on stands among the held-out rows too."""

    severity = "error"
    across = True
    zh = "训练用的某一行也出现在留出的数据中。"
    explained = Said(
        "What is measured on rows that were learnt is too good, and a better model cannot be told. Remove them from"
        " the"
        " training rows. It is an error where more than 1 in 100 held-out rows are known.",
        "在已学过的行上测得的成绩虚高，也分辨不出更好的模型。请从训练数据中删除它们。留出行中超过百分之一已被见过时，"
        "视为错误。",
    )

    def watch(self, renderer, targets):
        return Leak()


class Leak(Apart):
    def take(self, gathered: dict[str, Hashes], first: int) -> None:
        for split, hashes in gathered.items():
            self.split.setdefault("train" if split == "train" else "held out", Hashes()).extend(hashes, first)

    def wanted(self, item: Item) -> bool:
        return not item.too_long  # which is not trained on

    @property
    def train(self) -> Hashes:
        return self.split.get("train", Hashes())

    @property
    def held_out(self) -> Hashes:
        return self.split.get("held out", Hashes())

    def end(self, origin: Origin) -> Iterator[tuple[int, Words]]:
        (number, asked, answered), train = self.held_out.sorted(), self.train
        known: dict[tuple[int, int], int] = {}
        if len(number):
            possible = np.isin(np.array(train.asked), asked)
            keys = zip(asked.tolist(), answered.tolist(), strict=True)
            rows = dict(zip(reversed(list(keys)), reversed(number.tolist()), strict=True))
            for at in np.flatnonzero(possible).tolist():
                key = train.asked[at], train.answered[at]
                if key in rows:
                    known[key] = rows[key]
                    yield train.number[at], partial(held_out_in, origin(rows[key]))
        self.leaked = sum(key in known for key in zip(asked.tolist(), answered.tolist(), strict=True))

    def grave(self, found: int, rows: int) -> bool:
        return leaked(self.leaked, len(self.held_out.number))


def held_out_in(there: str) -> Said:
    return Said(f"is held out in {there}", f"也是留出的 {there}")


def leaked(known: int, held_out: int) -> bool:
    """Whether so many of the held-out rows are trained on that what is measured on them is wrong."""
    return known > 0.01 * held_out
