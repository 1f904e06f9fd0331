"""From a source to sequences: what is trained on, what is measured, and what was left out of either."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .dataset import Dataset, draw, gather, leave_out
from .example import Example
from .render import NoTarget, Renderer, Tokens, TooLong

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from ..run import Run


@dataclass
class Material:
    """All that a run reads of its data."""

    renderer: Renderer
    sequences: list[Tokens]
    """What is trained on."""
    test: list[Example]
    """Measured before and after."""
    validation: list[Example]
    """Measured while training."""
    options: tuple[str, ...]
    """The answers that occur, where they are so few that a task is a choice between them."""
    counts: dict[str, int]
    """How many rows were read, left out, cut; how many tokens there are."""

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.renderer.labels)

    @property
    def fingerprint(self) -> str:
        """A hash of everything that is trained on."""
        content = json.dumps([(tokens.ids, tokens.learn, tokens.label, tokens.weights) for tokens in self.sequences])
        return hashlib.sha256(content.encode()).hexdigest()


def prepare(
    run: Run, where: Path, held_out: Path | None, tokenizer: PreTrainedTokenizerFast, say: Callable[[str], None]
) -> Material:
    """Read and render a run's data; what was left out or cut is counted and said."""
    targets = run.objective.targets
    dataset = gather(run.data, where, held_out, run.train.seed)
    unread = f"; not read: {', '.join(dataset.unread)}" if dataset.unread else ""
    say(f"data: {run.data.path} read as {dataset.format.name}, from {', '.join(dataset.format.columns())}{unread}")
    labels = sorted({str(example.label) for example in dataset.train}) if targets == "label" else []
    renderer = Renderer(tokenizer, run.data, labels)
    if renderer.plain and targets == "answers":
        say(f"{renderer.name} brings no chat template: a plain one is used ('user: ...', 'assistant: ...')")
    sequences = [tokens for _, found in rendered(dataset, dataset.train, renderer, run) for tokens in found]
    choices = options(dataset.train) if targets == "answers" else ()
    test = measurable(dataset, dataset.test, renderer, run, choices)
    validation = (
        test if dataset.validation is dataset.test else measurable(dataset, dataset.validation, renderer, run, ())
    )
    cut = [tokens.cut for tokens in sequences if tokens.cut]
    counts = {
        "trained rows": len(dataset.train),
        "trained sequences": len(sequences),
        "trained tokens": sum(len(tokens.ids) for tokens in sequences),
        "target tokens": sum(sum(tokens.learn[1:]) for tokens in sequences),
        "held-out rows": len(dataset.test),
        "measured rows": len(test),
        "sequences cut": len(cut),
        "tokens cut": sum(cut),
        "target tokens cut": sum(tokens.lost for tokens in sequences),
        "answers without a stop token": sum(tokens.unstopped for tokens in sequences),
        **{f"rows left out: {reason}": number for reason, number in dataset.skipped.items()},
    }
    say("data: " + ", ".join(f"{number:,} {name}" for name, number in counts.items() if number))
    if dataset.first_skipped:
        say(f"data: the first row left out: {dataset.first_skipped}")
    return Material(renderer, sequences, test, validation, choices, counts)


def rendered(
    dataset: Dataset, examples: list[Example], renderer: Renderer, run: Run
) -> list[tuple[Example, list[Tokens]]]:
    """The examples that have a target, with their sequences."""
    found = []
    for example in examples:
        try:
            found.append((example, renderer.render(example, run.objective.targets)))
        except TooLong:
            dataset.skipped["longer than data.max_length"] += 1
        except NoTarget as fault:
            leave_out(dataset, "nothing to learn", f"{example.origin}: {fault}", run.data.on_bad_row)
    return found


def measurable(
    dataset: Dataset, examples: list[Example], renderer: Renderer, run: Run, choices: tuple[str, ...]
) -> list[Example]:
    """At most eval.max_samples held-out examples that have a target; of a choice, those whose answer was trained on."""
    drawn = draw(examples, run.eval.max_samples, seed=0)  # the same rows whatever the run's seed, to compare runs
    known = [example for example in drawn if not choices or example.gold in choices]
    if len(known) < len(drawn):
        dataset.skipped["answer not in training rows"] += len(drawn) - len(known)
    return [example for example, _ in rendered(dataset, known, renderer, run)]


FEW = 20
"""With at most this many different answers, each given several times, a task is a choice."""


def options(examples: list[Example]) -> tuple[str, ...]:
    """The answers that occur, if they are few and each is given time and again; else nothing."""
    if not all(example.answers for example in examples):
        return ()
    counts = Counter(str(example.gold) for example in examples)
    return tuple(sorted(counts)) if 2 <= len(counts) <= FEW and min(counts.values()) >= 3 else ()
