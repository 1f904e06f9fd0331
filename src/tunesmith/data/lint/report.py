"""The checks of some data: every rule looks at every row, and a report says what they found."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from ..rendering.render import Renderer
from .base import Item, Places, Rule, Said, Severity, Words, rule

if TYPE_CHECKING:
    from ...objectives.base import Targets

SHOWN = 3
"""Rows that a report shows for each rule."""
ORDER: dict[Severity, int] = {"error": 0, "warning": 1, "note": 2}


@dataclass(frozen=True)
class Found:
    """What one rule found."""

    rule: Rule
    severity: Severity
    numbers: Collection[int]
    """Which rows, by how many were looked at before them."""
    examples: list[tuple[str, Said]]
    """The first of them: file:line, and what is wrong there."""

    @property
    def count(self) -> int:
        return len(self.numbers)

    def sentence(self, rows: int) -> str:
        """A line about it, of so many rows; what is said of the first is not said again."""
        [(first, said), *others] = self.examples[:SHOWN]
        also = [origin if words == said else f"{origin}: {words.en}" for origin, words in others]
        begun = f"{self.severity} {self.rule.name}: {self.count:,} of {rows:,} rows; first {first}: {said.en}"
        return "; ".join([begun, *also])


@dataclass(frozen=True)
class Report:
    """What all rules found, the severest first."""

    rows: int
    found: list[Found]
    places: Places

    @property
    def errors(self) -> list[Found]:
        return [found for found in self.found if found.severity == "error"]

    def sentences(self) -> list[str]:
        """A line for each rule that found something."""
        return [found.sentence(self.rows) for found in self.found]

    def as_json(self) -> dict[str, Any]:
        counts = dict.fromkeys(ORDER, 0)
        for found in self.found:
            counts[found.severity] += 1
        return {
            "rows": self.rows,
            **{f"{name}s": n for name, n in counts.items()},
            "found": list(map(listed, self.found)),
        }


def listed(found: Found) -> dict[str, Any]:
    return {
        "code": found.rule.name,
        "severity": found.severity,
        "count": found.count,
        "title": {"en": title(found.rule), "zh": found.rule.zh},
        "explained": found.rule.explained._asdict(),
        "examples": [{"origin": origin, "message": said._asdict()} for origin, said in found.examples[:SHOWN]],
    }


def title(of: Rule | type[Rule]) -> str:
    """What a rule finds, in a line."""
    return (of.__doc__ or "").strip().partition("\n")[0]


class Looked(NamedTuple):
    """What was seen in a few rows, to be added to what was seen in others."""

    places: Places
    found: list[tuple[int, int, Said]]
    """Which rule said what of which of them."""
    gathered: dict[int, Any]
    """What rules remember of them."""


class Lint:
    """Rules at work: `look` at every row in the order of its file, then ask for the `report`."""

    def __init__(self, rules: list[Rule], renderer: Renderer | None, targets: Targets, *, shown: int = SHOWN) -> None:
        self.rules, self.places, self.shown = rules, Places(), shown
        self.watches = [each.watch(renderer, targets) for each in rules]
        self.looks = [(at, watch.look) for at, watch in enumerate(self.watches) if watch.look]
        self.numbers = [array("q") for _ in rules]
        self.examples: list[list[tuple[str, Said]]] = [[] for _ in rules]

    def look(self, item: Item) -> None:
        """Have every rule look at a row."""
        self.take(self.looked([item]))

    def looked(self, items: Sequence[Item]) -> Looked:
        """What the rules see in a few rows. It changes nothing, and may be asked for in a process forked from this."""
        for watch in self.watches:
            watch.begin()
        found = []
        for number, item in enumerate(items):
            for at, look in self.looks:
                if (said := look(item, number)) is not None:
                    found.append((at, number, said))
        gathered = ((at, watch.gather(items)) for at, watch in enumerate(self.watches))
        return Looked(Places(items), found, {at: some for at, some in gathered if some is not None})

    def take(self, looked: Looked) -> None:
        """Add what was seen in the rows that come next."""
        first = len(self.places)
        self.places.extend(looked.places)
        for at, number, said in looked.found:
            self.note(at, first + number, said)
        for at, some in looked.gathered.items():
            self.watches[at].take(some, first)

    def note(self, at: int, number: int, said: Said | Words) -> None:
        self.numbers[at].append(number)
        if len(self.examples[at]) < self.shown:
            self.examples[at].append((self.places[number], said if isinstance(said, Said) else said()))

    def report(self) -> Report:
        """What was found; to be asked for once, when all rows have been looked at."""
        rows = len(self.places)
        found = []
        for at, (each, watch) in enumerate(zip(self.rules, self.watches, strict=True)):
            for number, said in watch.end(self.places.__getitem__):
                self.note(at, number, said)
            if count := len(self.numbers[at]):
                mild = each.severity == "error" and not watch.grave(count, rows)
                severity: Severity = "warning" if mild else each.severity
                found.append(Found(each, severity, self.numbers[at], self.examples[at]))
        found.sort(key=lambda one: (ORDER[one.severity], -one.count, one.rule.name))
        return Report(rows, found, self.places)


def rules(*, cheap: bool = False, tokens: bool = True) -> list[Rule]:
    """The rules; with `cheap` those that run before every training, without `tokens` those that need no tokenizer."""
    return [each() for each in rule.all().values() if (each.cheap or not cheap) and (tokens or each.reads == "rows")]
