"""Runs beside each other as a page that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

from ..evaluate.chart import chart
from ..evaluate.report import visible
from .runs import FIRST, Held, Verdict, curves, differing

Rows = list[tuple[str, list[str]]]
"""A name, and a cell for each run."""


def told(runs: Sequence[Held]) -> Rows:
    """What each run came to, a row a figure."""
    names = dict.fromkeys(name for run in runs for name in run.figures)
    rows: Rows = [("status", [run.facts.get("status", "") for run in runs])]
    return rows + [(name, [figure(name, run.figures.get(name)) for run in runs]) for name in names]


def figure(name: str, value: float | None) -> str:
    if value is None:
        return ""
    if name.startswith(("accuracy", "macro_f1")):
        return f"{value:.1%}"
    return f"{value:,.1f}" if name in ("train_seconds", "tokens_per_second", "peak_memory_mb") else f"{value:.4f}"


def recipes(runs: Sequence[Held]) -> Rows:
    """Where the recipes differ, a row a key; behind a value stands where it came from."""
    return [
        (name, [f"{value} ({origin})" if origin else "" for value, origin in said])
        for name, said in differing(runs).items()
    ]


def page(runs: Sequence[Held], said: Sequence[Verdict]) -> str:
    """One HTML text, in which everything that a user wrote is escaped."""
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    neat = {"trim_blocks": True, "lstrip_blocks": True}
    environment = ImmutableSandboxedEnvironment(autoescape=True, undefined=StrictUndefined, **neat)
    text = (files("tunesmith.compare") / "runs.html.jinja").read_text(encoding="utf-8")
    drawn = {name: chart(lines, name) for name, lines in curves(runs).items()}
    shown = {name: one for name, one in drawn.items() if one}
    made = environment.from_string(text).render(
        labels=[run.label for run in runs],
        charts=[(name, one) for name, one in shown.items() if name in FIRST],
        more=[(name, one) for name, one in shown.items() if name not in FIRST],
        figures=told(runs),
        recipes=recipes(runs),
        verdicts=[str(one) for one in said],
    )
    return visible(made)
