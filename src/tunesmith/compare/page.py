"""A comparison as a page and as a picture."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from .figures import Row

HEAD = (
    "method",
    "before",
    "after",
    "over seeds",
    "against the best",
    "retained",
    "trained",
    "steps",
    "peak MB",
    "seconds",
    "tokens/s",
    "MB kept",
)


def cells(one: Row) -> list[str]:
    """A row in words."""
    if one.after is None:
        return [one.method, "", "", "", f"failed: {one.failed}", *[""] * 7]
    as_share = one.measure == "accuracy"

    def figure(value: float | None) -> str:
        return "" if value is None else f"{value:.1%}" if as_share else f"{value:.4f}"

    def spread(ends: tuple[float, float] | None) -> str:
        return "" if ends is None else f" ({figure(ends[0])} to {figure(ends[1])})"

    kept = "" if one.retained is None else f"{one.retained:.0%}"
    if one.retained_interval:
        kept += " ({:.0%} to {:.0%})".format(*one.retained_interval)
    failed = f"; a seed failed: {one.failed}" if one.failed else ""
    return [
        one.method,
        figure(one.before),
        f"{figure(one.after)}{spread(one.interval)}",
        "" if one.spread is None else f"±{figure(one.spread)} of {one.seeds}",
        f"{one.verdict}{spread(one.worse)}{', Pareto' if one.pareto else ''}{failed}",
        kept,
        f"{one.trainable or 0:,} ({one.share or 0:.2%})",
        f"{one.steps or 0:,}",
        f"{one.peak_memory_mb or 0:,.0f}",
        f"{one.seconds or 0:,.0f}",
        f"{one.tokens_per_second or 0:,.0f}",
        f"{one.disk_mb or 0:,.1f}",
    ]


def page(rows: Sequence[Row], title: str, about: Sequence[str]) -> str:
    """One HTML text that needs nothing else."""
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    neat = {"trim_blocks": True, "lstrip_blocks": True}
    environment = ImmutableSandboxedEnvironment(autoescape=True, undefined=StrictUndefined, **neat)
    text = (files("tunesmith.compare") / "page.html.jinja").read_text(encoding="utf-8")
    shown: dict[str, Any] = {"title": title, "head": HEAD, "rows": [(one, cells(one)) for one in rows]}
    return environment.from_string(text).render(
        **shown, about=[*about, *notes(rows)], picture=base64.b64encode(picture(rows)).decode()
    )


def notes(rows: Sequence[Row]) -> list[str]:
    """What was changed for a method, and what was found out before."""
    return [f"{one.method}: {one.note}" for one in rows if one.note]


def picture(rows: Sequence[Row]) -> bytes:
    """How good each is over how long it took, a disc as large as its peak of memory; a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ran = [one for one in rows if one.after is not None]
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set(xlabel="seconds of training", ylabel=ran[0].measure if ran else "")
    axes.grid(color="#b9c7d6", linewidth=0.4)
    most = max((float(one.peak_memory_mb or 1) for one in ran), default=1.0)
    for one in ran:
        at, colour = (float(one.seconds or 0), float(one.after or 0)), "#2563a8" if one.pareto else "#8a96a3"
        low, high = one.interval or (at[1], at[1])
        ends = [[max(at[1] - low, 0.0)], [max(high - at[1], 0.0)]]  # by rounding
        axes.errorbar(*at, yerr=ends, color=colour, linewidth=0.8, capsize=2)
        axes.scatter(*at, s=40 + 260 * float(one.peak_memory_mb or 1) / most, color=colour, alpha=0.6)
        axes.annotate(one.method, at, xytext=(8, 5), textcoords="offset points", fontsize=8)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110)
    return out.getvalue()
