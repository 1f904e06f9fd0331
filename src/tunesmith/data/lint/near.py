"""Rows that say nearly the same: MinHash over stretches of five characters, with bands."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence

import numpy as np

from .base import Item, Origin, Rule, Said, Watch, rule

WIDE = 5
"""Characters in a stretch: a word or so, and it works without spaces between words."""
SIZE, BANDS = 128, 16
ALIKE = 0.8
"""The share of stretches in common from which on rows are nearly the same."""
LEAST = 40
"""Shorter texts are alike by chance."""
LONGEST = 20_000
draw = np.random.default_rng(5)
FACTORS = draw.integers(1, 2**32, (SIZE, 1), dtype=np.uint32) | np.uint32(1)
MASKS = draw.integers(0, 2**32, (SIZE, 1), dtype=np.uint32)
MIX = draw.integers(1, 2**63, (SIZE // BANDS,), dtype=np.uint64) | np.uint64(1)


@rule("near-duplicate")
class NearDuplicate(Rule):
    """The row says nearly what an earlier one says: four fifths of it are the same."""

    cheap = False
    zh = "该行与较早的一行几乎相同：五分之四的内容一致。"
    explained = Said(
        "Copies with a comma changed count as often as they stand there, and across splits they leak. System turns and"
        " what data.format.prompt adds are left aside. Keep one of each group.",
        "只改了一个逗号的副本会被重复计算；若跨越划分，还会造成泄漏。system 与 data.format.prompt 所加的文字不计。"
        "每组请只保留一份。",
    )

    def watch(self, renderer, targets):
        return Near()


def own(item: Item) -> str:
    """What is the row's own: neither system turns, which many rows share, nor a recipe's template."""
    example = item.example
    said = "\n".join(message.content for message in item.turns if message.role != "system")
    if example and example.text:
        said += example.text
    parts = [value for value in item.row.values.values() if isinstance(value, str) and value and value in said]
    return "\n".join(parts) if parts else said


def signature(text: str) -> np.ndarray | None:
    """[SIZE] the least of each of so many hashes over a text's stretches; None if it has too few."""
    text = " ".join(text[:LONGEST].casefold().split())
    if len(text) < LEAST:
        return None
    letters = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    hashes = np.zeros(len(letters) - WIDE + 1, dtype=np.uint32)
    for at in range(WIDE):
        hashes = hashes * np.uint32(0x9E3779B1) + letters[at : len(letters) - WIDE + 1 + at]
        hashes ^= hashes >> np.uint32(15)
    mixed = hashes ^ MASKS
    mixed *= FACTORS
    return mixed.min(axis=1)


class Near(Watch):
    """Keeps 256 bytes a row: a byte of each hash to compare by, and a hash of each band to find by."""

    def __init__(self) -> None:
        self.number, self.train, self.same = array("q"), array("b"), array("Q")
        self.marks, self.bands = bytearray(), bytearray()

    def gather(self, items: Sequence[Item]) -> Near:
        found = Near()
        for number, item in enumerate(items):
            found.add(item, number)
        return found

    def take(self, gathered: Near, first: int) -> None:
        self.number.frombytes((np.array(gathered.number) + first).tobytes())
        for name in ("train", "same", "marks", "bands"):
            getattr(self, name).extend(getattr(gathered, name))

    def add(self, item: Item, number: int) -> None:
        made = signature(own(item)) if item.asked else None
        if made is None:
            return
        self.number.append(number)
        self.train.append(item.split == "train")
        self.same.append(item.asked ^ item.answered)
        self.marks += (made >> np.uint32(12)).astype(np.uint8).tobytes()
        grouped = made.astype(np.uint64).reshape(BANDS, -1)
        self.bands += ((grouped * MIX).sum(axis=1, dtype=np.uint64)).tobytes()

    def end(self, origin: Origin) -> Iterator[tuple[int, Said]]:
        if not len(self.number):
            return
        number, same = np.array(self.number), np.array(self.same)
        marks = np.frombuffer(self.marks, dtype=np.uint8).reshape(-1, SIZE)
        bands = np.frombuffer(self.bands, dtype=np.uint64).reshape(-1, BANDS)
        _, kept = np.unique(same, return_index=True)  # what is exactly the same is a duplicate
        kept.sort()
        groups = Groups(len(kept))
        for band in bands[kept].T:
            for one, other in candidates(band, same[kept]):
                if groups.apart(one, other) and alike(marks[kept[one]], marks[kept[other]]):
                    groups.join(one, other)
        for at in range(len(kept)):
            first = groups.first(at)
            if first != at:
                there = origin(int(number[kept[first]]))
                yield int(number[kept[at]]), Said(f"is nearly the same as {there}", f"与 {there} 几乎相同")


def candidates(band: np.ndarray, same: np.ndarray) -> Iterator[tuple[int, int]]:
    """Pairs of rows that agree in a band, each with the next and with the first, in an order that their content"
    " gives."""
    order = np.lexsort((same, band))
    equal = band[order][1:] == band[order][:-1]
    first = 0
    for at in np.flatnonzero(equal).tolist():
        if at == 0 or not equal[at - 1]:
            first = at
        yield int(order[at]), int(order[at + 1])
        yield int(order[first]), int(order[at + 1])


def alike(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether enough of two rows is the same; of a byte, 1 in 256 agrees by chance."""
    agreed = np.count_nonzero(one == other) / SIZE
    return bool((agreed - 1 / 256) / (1 - 1 / 256) >= ALIKE)


class Groups:
    """Things that belong together; each group is known by its first."""

    def __init__(self, count: int) -> None:
        self.above = list(range(count))

    def first(self, at: int) -> int:
        while self.above[at] != at:
            self.above[at] = self.above[self.above[at]]
            at = self.above[at]
        return at

    def apart(self, one: int, other: int) -> bool:
        return self.first(one) != self.first(other)

    def join(self, one: int, other: int) -> None:
        one, other = sorted((self.first(one), self.first(other)))
        self.above[other] = one
