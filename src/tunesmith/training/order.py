"""Which examples a step sees: a pure function of the seed and the step, so that a resumed run sees the same."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from ..run import Train


@dataclass(frozen=True, eq=False)
class Order:
    """The examples of every step, for one of `processes` processes."""

    train: Train
    lengths: Sequence[int]
    """Tokens in each example."""
    process: int = 0
    processes: int = 1
    kept: dict[int, list[int]] = field(default_factory=dict)

    @property
    def width(self) -> int:
        """Examples in one step, over all processes."""
        return self.train.per_device_train_batch_size * self.train.gradient_accumulation_steps * self.processes

    @property
    def epoch_steps(self) -> int:
        return math.ceil(len(self.lengths) / self.width)

    @cached_property
    def total(self) -> int:
        """Steps of the whole run."""
        if self.train.max_steps > 0:
            return self.train.max_steps
        return math.ceil(self.train.num_train_epochs * self.epoch_steps)

    @property
    def epochs(self) -> int:
        """Passes over the data, the last of them perhaps in part."""
        return math.ceil(self.total / self.epoch_steps)

    def batches(self, step: int) -> list[list[int]]:
        """The batches of examples that this process sees in a step, counted from 0."""
        epoch, at = divmod(step, self.epoch_steps)
        chosen = self.epoch(epoch)[at * self.width : (at + 1) * self.width]
        size = self.train.per_device_train_batch_size
        batches = [chosen[n : n + size] for n in range(0, len(chosen), size)]
        return batches[self.process :: self.processes]

    def epoch(self, number: int) -> list[int]:
        """The examples of an epoch, in order; the last one asked for is kept."""
        if number not in self.kept:
            self.kept.clear()
            self.kept[number] = self.draw(number)
        return self.kept[number]

    def draw(self, number: int) -> list[int]:
        order = list(range(len(self.lengths)))
        if self.train.train_sampling_strategy == "sequential":
            return order
        draw = random.Random(f"{self.train.seed} {number}")
        draw.shuffle(order)
        if self.train.train_sampling_strategy == "random":
            return order
        reach = 50 * self.width  # near enough in length, and still shuffled
        steps = []
        for at in range(0, len(order), reach):
            near = sorted(order[at : at + reach], key=lambda n: self.lengths[n])
            steps += [near[n : n + self.width] for n in range(0, len(near), self.width)]
        short = [step for step in steps if len(step) < self.width]
        steps = [step for step in steps if len(step) == self.width]
        draw.shuffle(steps)
        return [n for step in [*steps, *short] for n in step]
