"""Which examples a step sees: a pure function of the seed and the step, so that a resumed run sees the same."""

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from ..errors import RecipeError
from ..run import Run, Train


@dataclass(frozen=True, eq=False)
class Order:
    """The examples of every step, for one of `processes` processes.

    A step is `gradient_accumulation_steps` batches of each process. A batch is `per_device_train_batch_size` examples;
    with `max_tokens_per_batch`, as many as come to so many tokens; with `packing`, so many rows of examples that fill
    them up. In the latter two what is together stays together, and each epoch draws its order anew.
    """

    train: Train
    lengths: Sequence[int]
    """Tokens in each example."""
    process: int = 0
    processes: int = 1
    cutoff: int = 2048
    """Tokens in a row, with packing and without max_tokens_per_batch."""
    repeats: int = 1
    """Steps that see the same examples, one after another."""
    source: Sequence[int] = ()
    """Of each example, the number of the source that it comes from; needed where batches are balanced."""
    kept: dict[int, list[list[int]]] = field(default_factory=dict)

    @property
    def width(self) -> int:
        """Batches in one step, over all processes."""
        return self.train.gradient_accumulation_steps * self.processes

    @cached_property
    def epoch_steps(self) -> int:
        return math.ceil(len(self.epoch(0)) / self.width) * self.repeats

    @cached_property
    def total(self) -> int:
        """Steps of the whole run."""
        most, tokens = self.train.max_steps, self.train.num_train_tokens
        if tokens:
            reached = self.reaching(tokens)
            return min(most, reached) if most > 0 else reached
        return most if most > 0 else math.ceil(self.train.num_train_epochs * self.epoch_steps)

    def reaching(self, tokens: int) -> int:
        """After how many steps all processes together have learnt from so many tokens."""
        step = seen = 0
        while seen < tokens:
            seen += sum(self.lengths[n] for batch in self.whole(step) for n in batch)
            step += 1
        return step

    @property
    def epochs(self) -> int:
        """Passes over the data, the last of them perhaps in part."""
        return math.ceil(self.total / self.epoch_steps)

    @cached_property
    def seen(self) -> list[int]:
        """The examples that this process sees in all steps of the run."""
        steps = min(self.total, self.epoch_steps * self.epochs)
        return sorted({n for step in range(steps) for batch in self.batches(step) for n in batch})

    def batches(self, step: int) -> list[list[int]]:
        """The batches of examples that this process sees in a step, counted from 0."""
        return self.whole(step)[self.process :: self.processes]

    def whole(self, step: int) -> list[list[int]]:
        """The same of all processes."""
        epoch, at = divmod(step // self.repeats, self.epoch_steps // self.repeats)
        return self.epoch(epoch)[at * self.width : (at + 1) * self.width]

    def epoch(self, number: int) -> list[list[int]]:
        """The batches of an epoch, in order; the last one asked for is kept."""
        if number not in self.kept:
            self.kept.clear()
            self.kept[number] = self.laid_out(number)
        return self.kept[number]

    def laid_out(self, number: int) -> list[list[int]]:
        size = self.train.per_device_train_batch_size
        if self.quotas:
            return self.balanced(number)
        if not self.together:
            order = self.draw(number)
            return [order[at : at + size] for at in range(0, len(order), size)]
        rows = list(self.together)
        if self.train.train_sampling_strategy != "sequential":
            random.Random(f"{self.train.seed} {number}").shuffle(rows)
        if not self.train.packing:
            return rows
        return [[n for row in rows[at : at + size] for n in row] for at in range(0, len(rows), size)]

    @cached_property
    def quotas(self) -> list[int]:
        """How many examples of each source every batch has, where batches are balanced.

        A source's share of a batch is that of the epoch, as near as whole numbers come to it, and never nothing.
        """
        if self.train.train_sampling_strategy != "balanced":
            return []
        size, counts = self.train.per_device_train_batch_size, Counter(self.source)
        ideal = [size * counts[one] / len(self.source) for one in sorted(counts)]
        made = [max(1, math.floor(share)) for share in ideal]
        while sum(made) != size:
            more = 1 if sum(made) < size else -1
            able = [n for n, count in enumerate(made) if count + more > 0]
            made[max(able, key=lambda n: more * (ideal[n] - made[n]))] += more
        return made

    def balanced(self, number: int) -> list[list[int]]:
        """The batches of an epoch, each with as many examples of every source: of each in an order of its own, and
        when it is through, anew, until all sources are."""
        rows: dict[int, list[int]] = {one: [] for one in sorted(set(self.source))}
        for example, one in enumerate(self.source):
            rows[one].append(example)
        count = max(math.ceil(len(own) / quota) for own, quota in zip(rows.values(), self.quotas, strict=True))
        drawn = []
        for (one, own), quota in zip(rows.items(), self.quotas, strict=True):
            draw, made = random.Random(f"{self.train.seed} {number} {one}"), []
            while len(made) < count * quota:
                draw.shuffle(own)
                made += own
            drawn.append([made[at : at + quota] for at in range(0, count * quota, quota)])
        return [[example for own in drawn for example in own[batch]] for batch in range(count)]

    @cached_property
    def together(self) -> list[list[int]]:
        """The examples that fill a row or a batch, where tokens are what counts."""
        if self.train.packing:
            return fill(self.lengths, self.train.max_tokens_per_batch or self.cutoff)
        most = self.train.max_tokens_per_batch
        batches: list[list[int]] = []
        tokens = 0
        for example in self.draw(0) if most else ():
            if not batches or tokens + self.lengths[example] > (most or 0):
                batches.append([])
                tokens = 0
            batches[-1].append(example)
            tokens += self.lengths[example]
        return batches

    def draw(self, number: int) -> list[int]:
        order = list(range(len(self.lengths)))
        if self.train.train_sampling_strategy == "sequential":
            return order
        draw = random.Random(f"{self.train.seed} {number}")
        draw.shuffle(order)
        if self.train.train_sampling_strategy == "random":
            return order
        width = self.width * self.train.per_device_train_batch_size
        reach = 50 * width  # near enough in length, and still shuffled
        steps = []
        for at in range(0, len(order), reach):
            near = sorted(order[at : at + reach], key=lambda n: self.lengths[n])
            steps += [near[n : n + width] for n in range(0, len(near), width)]
        short = [step for step in steps if len(step) < width]
        steps = [step for step in steps if len(step) == width]
        draw.shuffle(steps)
        return [n for step in [*steps, *short] for n in step]


def refuse_order(run: Run) -> None:
    """Raise RecipeError for batches that cannot be balanced."""
    train, sources = run.train, 1 + len(run.data.also)
    key = "train.train_sampling_strategy: balanced"
    faults = {
        f"{key} gives each of several sources its part of a batch, and there is one; name more in data.also, or take"
        " random": sources == 1,
        f"{key} counts examples, and a batch is filled with tokens; leave out train.packing and"
        " train.max_tokens_per_batch": train.packing or train.max_tokens_per_batch is not None,
        f"{key} needs an example of each of {sources} sources in a batch of"
        f" {train.per_device_train_batch_size}; raise train.per_device_train_batch_size": (
            sources > train.per_device_train_batch_size
        ),
    }
    for sentence, fault in faults.items():
        if fault and train.train_sampling_strategy == "balanced":
            raise RecipeError(sentence)


def fill(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Examples in rows of at most `room` tokens: the longest first, each where the least room is left over for it.

    Best-fit decreasing needs at most 11/9 of the fewest rows possible (Johnson 1974). A longer example has its own row.
    """
    left: dict[int, list[list[int]]] = {}  # rows by the room that is left in them
    some = 0  # bit r is set where a row has room r left
    full: list[list[int]] = []
    for example in sorted(range(len(lengths)), key=lambda n: (-lengths[n], n)):
        length = lengths[example]
        fitting = some >> length
        if fitting:
            rest = length + (fitting & -fitting).bit_length() - 1
            row = left[rest].pop()
            if not left[rest]:
                some &= ~(1 << rest)
        else:
            rest, row = max(room, length), []
        row.append(example)
        if rest == length:
            full.append(row)
        else:
            left.setdefault(rest - length, []).append(row)
            some |= 1 << rest - length
    rows = [*full, *(row for rows in left.values() for row in rows)]
    return sorted(rows, key=lambda row: row[0])
