"""What a person reads of a run: report.html, one file that needs no other, and loss.png."""

from __future__ import annotations

import base64
import io
from importlib.resources import files
from typing import Any

from ..config.load import dump, leaves, setting
from ..files import whole, write
from ..runs import RunFolder
from .metrics import Interval, Scores

ACCENT, QUIET = "#2563a8", "#b9c7d6"


def write_report(run: RunFolder) -> None:
    """Write report.html and loss.png from what the run folder says."""
    picture = curve(run.metrics)
    with whole(run.path / "loss.png") as beside:
        beside.write_bytes(picture)
    write(run.path / "report.html", page(run, picture))


def page(run: RunFolder, picture: bytes) -> str:
    """The report as one HTML text; everything that a user wrote is escaped."""
    from jinja2 import Environment

    facts, recipe = run.facts, run.recipe().value
    before, after = Scores.from_json(facts.get("before")), Scores.from_json(facts.get("after"))
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files(__package__).joinpath("report.html.jinja").read_text(encoding="utf-8"))
    return template.render(
        run=run,
        facts=facts,
        recipe=recipe,
        headline=headline(before, after),
        rows=summary(before, after),
        matrices=[
            (name, scores) for name, scores in (("before", before), ("after", after)) if scores and scores.labels
        ],
        settings=settings(run),
        picture=base64.b64encode(picture).decode(),
        visible=visible,
    )


def headline(before: Scores | None, after: Scores | None) -> str:
    """The result in a sentence."""
    if not before or not after:
        return "The run was not measured."
    if after.accuracy is None or before.accuracy is None:
        return f"Loss {before.loss:.3f} → {after.loss:.3f} on {after.n} held-out rows"
    spread = f" (95% interval {shown(after.interval)})" if after.interval else ""
    return f"Accuracy {before.accuracy:.1%} → {after.accuracy:.1%} on {after.n} held-out rows{spread}"


def summary(before: Scores | None, after: Scores | None) -> list[tuple[str, str, str]]:
    """The figures in words, a row a measure: its name, before, after."""
    measures = {
        "accuracy": lambda s: "" if s.accuracy is None else f"{s.accuracy:.1%} ({shown(s.interval)})",
        "macro F1": lambda s: "" if s.macro_f1 is None else f"{s.macro_f1:.3f}",
        "loss": lambda s: f"{s.loss:.4f}",
        "perplexity": lambda s: f"{s.perplexity:.3f}" if s.perplexity < 1e6 else f"{s.perplexity:.2e}",
        "rows": lambda s: str(s.n),
    }
    rows = [(name, *(word(side) if side else "" for side in (before, after))) for name, word in measures.items()]
    return [(name, first, second) for name, first, second in rows if first or second]


def shown(interval: Interval | None) -> str:
    return f"{interval[0]:.1%} to {interval[1]:.1%}" if interval else ""


def settings(run: RunFolder) -> list[tuple[str, Any, str]]:
    """Every setting with where it came from; those that are not defaults first."""
    origins, tree = run.facts.get("origins", {}), dump(run.recipe().value)
    found = []
    for path in leaves(tree):
        value = tree
        for key in path:
            value = value[key]
        found.append((setting(path), value, origins.get(setting(path), "default")))
    return sorted(found, key=lambda row: row[2] == "default")


def visible(text: str, most: int = 600) -> str:
    """A text as it may be shown: control characters as their pictures, and not too long."""
    kept = "".join(letter if letter.isprintable() or letter in "\n\t" else "\ufffd" for letter in text)
    return kept if len(kept) <= most else f"{kept[:most]} …"


def curve(lines: list[dict[str, float]]) -> bytes:
    """The loss over the steps as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for key, label, colour in (("loss", "training", ACCENT), ("eval_loss", "held out", "#b4561f")):
        points = [(line["step"], line[key]) for line in lines if key in line]
        if points:
            axes.plot(*zip(*points, strict=True), label=label, color=colour, marker="o", markersize=3)
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.grid(color=QUIET, linewidth=0.4)
    if lines:
        axes.legend()
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110)
    return out.getvalue()
