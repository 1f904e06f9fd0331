"""How often each label is given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from .base import Item, Origin, Rule, Said, Watch, rule

FEW = 100
"""With more different answers than this, they are no labels."""
SHORT = 60
"""An answer longer than this is no label."""
TIMES = 10
"""How much rarer than the most frequent label a label may be."""


@rule("label-imbalance")
class LabelImbalance(Rule):
    """A label is more than ten times rarer than another, or is the only one there is."""

    zh = "某个标签比另一标签少十倍以上，或者只有一个标签。"
    explained = Said(
        "A model that always says the frequent label looks good and has learnt nothing. Look at macro F1 rather than"
        " accuracy; collect more rows of the rare label, or draw fewer of the frequent one.",
        "总说高频标签的模型看起来很好，其实什么也没学到。请看宏平均 F1 而不是准确率；为稀有标签多收集数据，"
        "或少取高频标签。",
    )

    def watch(self, renderer, targets):
        return Balance(targets)


class Balance(Watch):
    """Counts the labels of the training rows, until they turn out to be none."""

    def __init__(self, targets: str) -> None:
        self.sure = targets == "label"
        self.counts: dict[str, list[int]] | None = {}

    def gather(self, items: Sequence[Item]) -> dict[str, list[int]] | Literal["none"] | None:
        """How often each label is given, and where first; "none" if what is given are no labels."""
        found: dict[str, list[int]] = {}
        for number, item in enumerate(items):
            example = item.example
            if example is None or item.split != "train":
                continue
            label = str(example.liked) if example.liked is not None else example.gold
            if label is None:
                continue
            if not self.sure and len(label) > SHORT:
                return "none"
            found.setdefault(label, [0, number])[0] += 1
        return found

    def take(self, gathered: dict[str, list[int]] | Literal["none"], first: int) -> None:
        if self.counts is None or gathered == "none":
            self.counts = None
            return
        for label, (count, number) in gathered.items():
            self.counts.setdefault(label, [0, first + number])[0] += count
        if not self.sure and len(self.counts) > FEW:
            self.counts = None

    def end(self, origin: Origin) -> Iterator[tuple[int, Said]]:
        if not self.counts or not self.sure and min(count for count, _ in self.counts.values()) < 3:
            return
        most, top = max((count, label) for label, (count, _) in self.counts.items())
        if len(self.counts) == 1 and self.sure:
            yield (
                self.counts[top][1],
                Said(f"all {most:,} rows have the label {top!r}", f"全部 {most:,} 行的标签都是 {top!r}"),
            )
        for label, (count, first) in sorted(self.counts.items(), key=lambda entry: entry[1]):
            if count * TIMES < most:
                yield (
                    first,
                    Said(
                        f"{count:,} rows have the label {label!r:.60}, {most:,} have {top!r:.60}",
                        f"标签 {label!r:.60} 有 {count:,} 行，{top!r:.60} 有 {most:,} 行",
                    ),
                )
