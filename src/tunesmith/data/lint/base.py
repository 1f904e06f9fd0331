"""What a rule is: it looks at one row after another, and says what it found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from ...config.registry import Registry
from ..example import Example
from ..render import Tokens
from ..source import Row

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Item:
    """A row, and what became of it."""

    row: Row
    split: str
    """train, validation or test."""
    example: Example | None = None
    """What it means; None if it could not be read."""
    tokens: list[Tokens] = field(default_factory=list)
    """Its sequences; none if there is nothing to learn."""
    fault: str | None = None
    """Why it has no example or no sequences, in words."""


@dataclass(frozen=True)
class Finding:
    """Rows that a rule has something to say of."""

    origin: str
    """file:line of the row."""
    message: str


class Rule:
    """Looks at rows. Its name is its code; the first line of its docstring says what it finds."""

    name: ClassVar[str]
    severity: ClassVar[Severity] = "warning"
    cheap: ClassVar[bool] = True
    """Whether it runs before every training."""
    explained: ClassVar[str]
    """Why it matters and what to do."""
    explained_zh: ClassVar[str]
    """The same in Chinese."""


rule: Registry[Rule] = Registry("rule", "tunesmith.data.lint")
