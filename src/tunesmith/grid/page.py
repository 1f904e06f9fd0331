"""The grid as a page: a table an objective, with the reasons below."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import date

from ..precision.base import precision
from ..runs import versions
from .check import Outcome

HEAD = """\
# The grid 试验网格

`tunesmith grid{words}` has written this page on {day}, with {versions}.

A cell trains a tiny Qwen2 with random weights for a few steps. It is `ok` where

1. the loss falls;
2. what learns has moved, every part of it, and nothing else has, to the bit;
3. loss and gradient of the first step are those of a plain forward of transformers under PEFT's own layers, one
   sequence at a time, by autograd: none of our layers, no packed rows;
4. what is saved and loaded in a new process says the same;
5. merged into the weights it says the same, where weights can take it in.

A number is a reason below, and an empty cell was not tried.

每一格用随机权重的小型 Qwen2 训练几步。`ok` 表示:

1. 损失下降;
2. 该动的参数全都动了,其余的一位未变;
3. 第一步的损失和梯度,与纯 transformers 加 PEFT 自己的层、逐条计算、由 autograd 求得的相同;
4. 保存后在新进程中载入,输出相同;
5. 凡能合并进权重的,合并后输出相同。

数字指下面的原因,空格表示没有试。

{counts}
"""
APART = {
    "drawn": "nats a token, answers drawn and a plain forward 抽取的回答",
    "gradient": "loss and gradient, from plain torch and PEFT 损失和梯度",
    "reloaded": "logits in a new process 新进程中的输出",
    "merged": "logits when merged 合并后的输出",
}


Reasons = dict[tuple[str, str], list[str]]


def page(outcomes: Sequence[Outcome], words: str) -> str:
    """The page of outcomes that `tunesmith grid` with these words has come to."""
    found = reasons(outcomes)
    numbers = {name: number for number, names in enumerate(found.values(), 1) for name in names}
    parts = [
        HEAD.format(words=words, day=date.today(), versions=standing_on(), counts=f"{counted(outcomes)}."),
        farthest(outcomes),
        *(table(name, outcomes, numbers) for name in sorted({objective_of(one) for one in outcomes})),
    ]
    if found:
        listed = (f"{number}. {status}: {reason}" for number, (status, reason) in enumerate(found, 1))
        parts += ["## Reasons 原因\n", "\n".join(listed) + "\n"]
    return "\n".join(parts)


def counted(outcomes: Sequence[Outcome]) -> str:
    counts = Counter(one.status for one in outcomes)
    said = ", ".join(f"{counts[status]} {status}" for status in ("ok", "refused", "failed"))
    return f"{len(outcomes)} cells: {said}"


def reasons(outcomes: Sequence[Outcome]) -> Reasons:
    """Why cells were refused or failed, and which: what differs in nothing but a cell's own names is said once."""
    found: Reasons = {}
    for one in outcomes:
        if one.reason:
            method, _, held, _ = one.name.split()
            said = one.reason
            if one.status == "refused":
                said = said.replace(f"precision={held} ", "precision=... ").replace(f"and {method} ", "and the method ")
            found.setdefault((one.status, said), []).append(one.name)
    return found


def objective_of(outcome: Outcome) -> str:
    return outcome.name.split()[1]


def standing_on() -> str:
    packages = dict.fromkeys(entry.package for entry in precision.all().values() if entry.package)
    found = versions(*packages)
    return ", ".join(f"{name} {version}" for name, version in found.items() if name != "machine")


def farthest(outcomes: Sequence[Outcome]) -> str:
    """How far things were apart at most, where what is computed is rounded and where it is not."""
    rows = []
    for figure, what in APART.items():
        found: dict[bool, list[float]] = {False: [], True: []}
        for one in outcomes:
            if figure in one.figures:
                found[one.rounded and figure != "merged"].append(one.figures[figure])
        rows.append(f"| {what} | " + " | ".join(f"{max(far):.1e}" if far else "" for far in found.values()) + " |")
    return "| farthest apart 最大偏差 | in 32 bits 32 位计算 | in fewer 更少位 |\n|-|-|-|\n" + "\n".join(rows) + "\n"


def table(objective: str, outcomes: Sequence[Outcome], numbers: dict[str, int]) -> str:
    """Methods down, precisions across; where packed and padded batches come to the same, it is said once."""
    cells: dict[tuple[str, str], list[str]] = {}
    for one in outcomes:
        method, aim, held, batch = one.name.split()
        if aim == objective:
            mark = str(numbers.get(one.name, "ok"))
            mark = f"**{mark}**" if one.status == "failed" else mark
            cells.setdefault((method, held), []).append(f"{mark} {batch}")
    methods, across = (sorted({key[n] for key in cells}) for n in (0, 1))
    lines = [f"| | {' | '.join(across)} |", "|-" * (len(across) + 1) + "|"]
    for method in methods:
        lines.append(f"| {method} | {' | '.join(shown(cells.get((method, held), [])) for held in across)} |")
    return f"## {objective}\n\n" + "\n".join(lines) + "\n"


def shown(marks: list[str]) -> str:
    """`ok` for packed and padded alike, else each."""
    alike = {mark.rpartition(" ")[0] for mark in marks}
    return alike.pop() if len(alike) == 1 and len(marks) == 2 else ", ".join(marks)
