"""What one source comes to: made in one pass, and kept under a name that stands for all that it depends on."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ... import cache
from ...config.load import dump
from ...errors import DataError
from ...files import remove, sha256
from ..dataset import Item, Pass
from ..example import Example
from ..lint.report import Lint, Looked, rules
from ..ratings import rated
from ..reading.places import Place
from ..rendering.render import Renderer, Tokens
from ..task import kind_of
from .ahead import seldom_tidied
from .known import Noted, Rows
from .store import Columns, Stored, Writer

if TYPE_CHECKING:
    from pydantic import TypeAdapter

    from ...objectives.base import Targets
    from ...run import Run

FEW = 20
"""With at most this many different answers, each given several times, a task is a choice."""
MEND = "mend the row, or leave such rows out with data.on_bad_row=skip"
LIKED = "disliked", "liked"
"""The two classes of answers, the first 0."""
OFTEN = 10.0
"""Seconds between two lines about progress."""


@dataclass(frozen=True, eq=False)
class Part:
    """One source of a run."""

    run: Run
    place: Place
    renderer: Renderer
    say: Callable[[str], None]

    @property
    def depends_on(self) -> dict[str, Any]:
        """All that decides what the source comes to."""
        run, place = self.run, self.place
        names = {str(file): name for name, file in place.named()}
        data = {name: getattr(run.data, name) for name in ("max_length", "truncation", "train_on", "thinking")}
        return {
            "splits": {split: [names[str(file)] for file in files] for split, files in place.files.items()},
            "files": [[name, digest] for name, (digest, _) in place.read_through.items()],
            "root": str(place.root.absolute()),  # origins say where a row is
            "media": str(place.media.absolute()) if place.media else None,
            "format": [dump(place.format), *(sha256(file) for file in place.format.code())],
            "held out": [place.share, place.aside, run.eval.max_samples],
            "task": place.task,
            "drawn": [place.most, run.train.seed] if place.most is not None else None,
            "options": data
            | {"on_bad_row": run.data.on_bad_row, "targets": run.objective.targets}
            | {"needs": run.objective.needs},
            "tokenizer": spelt(self.renderer),
            "code": code(),
        }

    def stored(self) -> Stored:
        """The sequences, from the cache if they are there."""
        before = stamps(self.place)
        made_of = json.dumps(self.depends_on, sort_keys=True, ensure_ascii=False)
        target = cache.cache() / "data" / hashlib.sha256(made_of.encode()).hexdigest()[:16]
        size = sum(file.stat().st_size for _, file in self.place.named())
        folder = cache.keep(target, made_of, self.build, disk=1 + 2 * size // 1_000_000)
        if stamps(self.place) != before:
            remove(folder)
            raise DataError(f"{self.place.root}: was changed while it was read; start again once it is whole")
        cache.used(folder)
        return Stored(folder)

    def build(self, folder: Path) -> None:
        """Read and render the source into a folder."""
        run = self.run
        targets, found = run.objective.targets, Findings(run.data.on_bad_row)
        checks = Lint([one for one in rules(cheap=True) if not one.across], self.renderer, targets)
        asked: list[tuple[int, Example]] = []  # rewards look at more than a prompt's tokens
        passing = Pass(self.place, self.renderer, targets, run.train.seed, run.eval.max_samples)

        def fold(items: list[Item]) -> Folded:
            seen, columns, said = Findings(run.data.on_bad_row), Columns(), Rows()
            items = [enough(item, run.objective.needs) for item in items]
            for item in items:
                seen.note(item)
                said.add(item)
                for tokens in item.tokens:
                    columns.add(tokens, named(item.example, tokens, targets))
            looked = checks.looked([item for item in items if not item.fault])
            prompts = [(0, item.example) for item in items if item.example and item.tokens and targets == "prompts"]
            return Folded(len(items), items[-1].row.origin, seen, looked, columns, said, prompts)

        with Writer(folder) as writer, Noted(folder) as noted, seldom_tidied():
            for some in self.told(passing.folded(fold)):
                found.add(some.found)
                checks.take(some.looked)
                writer.add(some.columns)
                noted.add(some.said)
                asked += some.asked
            report = checks.report()
            kinds = {found.rule.name for found in report.errors}
            first = next((f"{origin}: {said.en}" for one in report.errors for origin, said in one.examples), "")
            told = {"errors": sorted(kinds), "first error": first, "lint": report.sentences()}
            told["offered"] = passing.offered
            writer.close(found.facts() | told | {"read": noted.close()})
        for split, examples in {"train": asked, **passing.held}.items():
            (folder / f"{split}.json").write_bytes(entries().dump_json(list(examples)))

    def told(self, folded: Iterator[Folded]) -> Iterator[Folded]:
        """The same; now and then it is said how far one is."""
        began = last = time.monotonic()
        count = 0
        for some in folded:
            yield some
            count += some.rows
            if time.monotonic() - last > OFTEN:
                last = time.monotonic()
                share, speed = self.done(some.last), count / (last - began)
                left = f", {(last - began) * (1 - share) / share:,.0f} s left" if share else ""
                self.say(f"data: {self.place.name}: {count:,} rows, {speed:,.0f} rows/s{left}")

    def done(self, origin: str) -> float | None:
        """How much of the source lies before a row; None where its files have no lines."""
        name, _, line = origin.rpartition(":")
        before = 0
        counts = [lines for _, lines in self.place.read_through.values()]
        for (_, file), lines in zip(self.place.named(), counts, strict=True):
            if str(file) == name:
                return (before + int(line)) / max(1, sum(counts)) or None
            before += lines
        return None


def named(example: Example | None, tokens: Tokens, targets: Targets) -> str | None:
    """The class of a sequence, for what is learnt."""
    if targets == "liked":
        return LIKED[bool(tokens.label)]
    if example is None or targets not in ("label", "mixed"):
        return None
    return example.label if example.labels is None else json.dumps(sorted(set(example.labels)))


def enough(item: Item, needs: Sequence[str]) -> Item:
    """An item, or the fault that a row to train on does not say what is needed."""
    example = item.example
    if item.split != "train" or item.fault or example is None:
        return item
    for name in needs:
        if name not in rated(example):
            columns = f"a column {name}, or the scores of both answers in chosen_ratings and rejected_ratings"
            fault = (
                f"{item.row.origin}: does not say how many raters agree ({columns}), which this objective learns from;"
                " if no row does, set objective.raters=ignore"
            )
            return replace(item, tokens=(), fault=fault)
    return item


class Folded(NamedTuple):
    """What some hundred rows come to."""

    rows: int
    last: str
    """Where the last of them is."""
    found: Findings
    looked: Looked
    columns: Columns
    said: Rows
    asked: list[tuple[int, Example]]
    """The examples of prompts."""


class Findings:
    """What is counted on the way."""

    def __init__(self, on_bad_row: str) -> None:
        self.on_bad_row = on_bad_row
        self.counts: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self.first_skipped = ""
        self.answers: Counter[str] | None = Counter()
        self.kinds: Counter[str] = Counter()

    def note(self, item: Item) -> None:
        if item.fault:
            if self.on_bad_row == "error":
                raise DataError(f"{item.fault}; {MEND}")
            self.skipped["nothing to learn" if item.example else "unreadable"] += 1
            self.first_skipped = self.first_skipped or item.fault
        elif item.too_long:
            self.skipped["longer than data.max_length"] += 1
            self.counts["tokens cut"] += item.too_long.tokens
            self.counts["target tokens cut"] += item.too_long.targets
        elif item.example is None:
            self.skipped["given up by data.format.function"] += 1
        if item.example is None:
            return
        self.counts[item.split] += 1
        if item.split == "train":
            self.kinds.update([kind_of(item.example)] if item.tokens else [])
            cut = [tokens.cut for tokens in item.tokens if tokens.cut]
            self.counts["sequences cut"] += len(cut)
            self.counts["tokens cut"] += sum(cut)
            self.counts["target tokens cut"] += sum(tokens.lost for tokens in item.tokens)
            self.counts["answers without a stop token"] += sum(tokens.unstopped for tokens in item.tokens)
            self.answered(item.example)

    def answered(self, example: Example) -> None:
        """Count the answers, for as long as they are few."""
        if self.answers is None:
            return
        self.answers[str(example.gold)] += 1
        if not example.answers or len(self.answers) > FEW:
            self.answers = None

    def add(self, other: Findings) -> None:
        """Count what was counted of the rows that come next."""
        self.counts.update(other.counts)
        self.skipped.update(other.skipped)
        self.first_skipped = self.first_skipped or other.first_skipped
        self.kinds.update(other.kinds)
        if self.answers is not None:
            self.answers = None if other.answers is None else self.answers + other.answers
            if self.answers is not None and len(self.answers) > FEW:
                self.answers = None

    def facts(self) -> dict[str, Any]:
        return {
            "counts": dict(self.counts),
            "skipped": dict(self.skipped),
            "first skipped": self.first_skipped,
            "answers": None if self.answers is None else dict(self.answers),
            "kinds": dict(self.kinds),
        }


def held(part: Stored, split: str) -> Sequence[tuple[int, Example]]:
    """The held-out examples of a split, each with the key by which it is drawn; of train, prompts."""
    file = part.folder / f"{split}.json"
    return entries().validate_json(file.read_bytes()) if file.exists() else []


@lru_cache
def entries() -> TypeAdapter[list[tuple[int, Example]]]:
    from pydantic import TypeAdapter

    return TypeAdapter(list[tuple[int, Example]])


def stamps(place: Place) -> list[tuple[int, int]]:
    return [(file.stat().st_size, file.stat().st_mtime_ns) for _, file in place.named()]


def spelt(renderer: Renderer) -> str:
    """A hash of everything by which a tokenizer writes."""
    tokenizer = renderer.tokenizer
    template, special = tokenizer.chat_template, tokenizer.special_tokens_map
    parts = [tokenizer.backend_tokenizer.to_str(), json.dumps([template, special], sort_keys=True, default=str)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


@lru_cache
def code() -> str:
    """A hash of the code that reads and renders."""
    made = hashlib.sha256()
    for file in sorted(Path(__file__).parent.parent.rglob("*.py")):
        made.update(file.read_bytes())
    for name in ("transformers", "tokenizers", "jinja2", "regex", "pyarrow"):
        made.update(f"{name} {version(name)}".encode())
    return made.hexdigest()
