"""What a person reads of a run: report.html, one file that needs no other, and loss.png."""

from __future__ import annotations

import io
import json
import shlex
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import whole, write
from ..passport import origins, read, settings
from ..runs import RunFolder
from .chart import Point, chart, finite
from .course import course, rewarded, warnings
from .course import headline as told
from .course import measures as measures_of
from .metrics import Interval, Scores, plain

if TYPE_CHECKING:
    from jinja2 import Template


@dataclass(frozen=True)
class Sample:
    """A held-out row, and what the model says to it."""

    prompt: str
    gold: str = ""
    before: str = ""
    after: str = ""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a report tells; plain data, of which nothing need be safe to show."""

    title: str
    run: str
    """The run folder, as commands name it."""
    model: str
    method: str
    objective: str
    data: str = ""
    judged: str = ""
    """How answers were judged."""
    course: Sequence[tuple[str, str, str]] = ()
    """Where it learnt from its own answers, what was watched of them: at the beginning, and at the end."""
    warnings: Sequence[str] = ()
    """What a reader should know before the figures are believed."""
    rewards: Sequence[Point] = ()
    """Of answers that were learnt from."""
    judges: Sequence[str] = ()
    """Who made the labels of the data, in sentences, where that was a judge."""
    when: str = ""
    """When the run began, in ISO's form."""
    seconds: float = 0.0
    tokens_per_second: float = 0.0
    peak_memory_mb: float = 0.0
    trainable: int = 0
    total: int = 0
    """Parameters that learn, and all of them."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Rows and tokens that were read, trained on, cut, left out."""
    before: Scores | None = None
    after: Scores | None = None
    samples: Sequence[Sample] = ()
    losses: Sequence[Point] = ()
    """Of training."""
    evals: Sequence[Point] = ()
    """On held-out rows."""
    settings: Sequence[tuple[str, Any, str]] = ()
    """Key, value, and where the value came from."""
    versions: Mapping[str, str] = field(default_factory=dict)


def write_report(folder: Path, facts: Facts | None = None) -> None:
    """Write report.html and loss.png into a folder; without `facts`, from what the run folder says."""
    run = RunFolder(folder)
    told = facts or facts_of(run)
    with whole(run.path / "loss.png") as beside:
        beside.write_bytes(picture(told))
    write(run.path / "report.html", page(told))


def facts_of(run: RunFolder) -> Facts:
    """What a run folder says, as a report tells it."""
    known, recipe, lines, passport = run.facts, run.recipe().value, run.metrics, read(run.path)
    result, parameters = known.get("result", {}), known.get("parameters", {})
    sides = Scores.from_json(known.get("before")), Scores.from_json(known.get("after"))
    samples = [
        Sample(*(str(sample.get(key) or "") for key in ("prompt", "gold", "before", "after")))
        for sample in known.get("samples", ())
    ]
    return Facts(
        title=known.get("name", run.path.name),
        run=str(run.path),
        model=recipe.model.path,
        method=recipe.method.name,
        objective=recipe.objective.name,
        data=recipe.data.path,
        judged=known.get("judged", ""),
        course=course(lines),
        warnings=warnings(lines, *sides, known.get("alarms", {})),
        rewards=[(line["step"], line["reward"]) for line in lines if "reward" in line],
        judges=[str(one.get("said", "")) for one in known.get("judges", ())],
        when=known.get("started", ""),
        seconds=result.get("train_seconds", 0.0),
        tokens_per_second=result.get("tokens_per_second", 0.0),
        peak_memory_mb=result.get("peak_memory_mb", 0.0),
        trainable=parameters.get("trainable", 0),
        total=parameters.get("total", 0),
        counts=known.get("counts", {}),
        before=sides[0],
        after=sides[1],
        samples=samples,
        losses=[(line["step"], line["loss"]) for line in lines if "loss" in line],
        evals=[(line["step"], line["eval_loss"]) for line in lines if "eval_loss" in line],
        settings=settings(recipe, origins(passport)),
        versions=passport["versions"],
    )


@cache
def template() -> Template:
    """What a page is made of; translated once a process, which takes longer than to fill it in."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    def shown(value: Any) -> Any:
        # what a macro of the template made has been through here
        return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    environment = Environment(
        autoescape=True, finalize=shown, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"short": short, "word": word, "duration": duration}
    return environment.from_string(
        files("tunesmith.evaluate").joinpath("report.html.jinja").read_text(encoding="utf-8")
    )


def page(facts: Facts) -> str:
    """The report as one HTML text, in which everything that a user wrote is escaped."""
    sides = {"before": facts.before, "after": facts.after}
    return template().render(
        facts=facts,
        headline=headline(facts.before, facts.after),
        rows=summary(facts.before, facts.after),
        matrices=[(name, scores) for name, scores in each(sides).items() if scores.labels],
        reliability=[(side, scores) for side, scores in sides.items() if scores and scores.reliability],
        charts=[(name, drawn) for name, drawn in charts(facts).items() if drawn],
        rewarded=rewarded(facts.after) or rewarded(facts.before),
        chosen=[row for row in facts.settings if row[2] != "default"],
        defaults=[row for row in facts.settings if row[2] == "default"],
        folder=shlex.quote(facts.run),
        same=lambda said, gold: bool(gold.strip()) and plain(said) == plain(gold),
    )


# words


def headline(before: Scores | None, after: Scores | None) -> str:
    """The result in a sentence."""
    if not after:
        return "This run was not measured"
    if rewarded(after):
        return told(before, after)
    if after.accuracy is None:
        change = f"{before.loss:.3f} → {after.loss:.3f}" if before else f"{after.loss:.3f}"
        return f"Loss {change} on {after.n:,} held-out rows"
    change = f"{before.accuracy:.1%} → " if before and before.accuracy is not None else ""
    spread = f" (95% interval {percents(after.interval)})" if after.interval else ""
    halves = after.half_of_raters
    raters = "" if halves is None else f"; half of the raters agree with the others in {halves:.1%}"
    return f"Accuracy {change}{after.accuracy:.1%} on {after.n:,} held-out rows{spread}{raters}"


def each(sides: Mapping[str, Scores | None]) -> dict[str, Scores]:
    """The scores of each side, and of each task on it."""
    found = {side: scores for side, scores in sides.items() if scores}
    return found | {f"{side}: {name}": one for side, scores in found.items() for name, one in scores.tasks.items()}


def doubt(before: Scores | None, after: Scores | None) -> str:
    """What must be said of a run that has not made things better for certain; nothing of one that has."""
    if not before or not after:
        return ""
    other = "train longer (train.num_train_epochs), or at another train.learning_rate"
    if before.accuracy is None or after.accuracy is None:
        figures = f"{before.loss:.4f} before, {after.loss:.4f} after"
        return "" if after.loss < before.loss else f"the loss did not fall: {figures}; {other}"
    figures = f"{before.accuracy:.1%} before, {after.accuracy:.1%} after"
    if after.accuracy <= before.accuracy:
        return f"accuracy did not rise: {figures}; {other}"
    if after.interval and after.interval[0] <= before.accuracy:
        return f"accuracy rose by no more than chance may: {figures} ({percents(after.interval)}); {other}"
    return ""


def summary(before: Scores | None, after: Scores | None) -> list[tuple[str, str, str]]:
    """The figures in words, a row a measure: its name, before, after; those of each task behind those of all."""
    names = [*dict.fromkeys(name for side in (before, after) if side for name in side.tasks)]
    own = {name: [side.tasks.get(name) if side else None for side in (before, after)] for name in names}
    rows = [(f"{name}: {row[0]}", *row[1:]) for name, sides in own.items() for row in measures(*sides)]
    return [row for row in measures(before, after) if not (names and row[0] == "perplexity")] + rows


def measures(before: Scores | None, after: Scores | None) -> list[tuple[str, str, str]]:
    """The figures of one task in words."""

    def spread(interval: Interval | None, times: int = 100, digits: int = 1) -> str:
        return f" ({bounds(interval, times, digits)})" if interval else ""

    def share(figure: float | None, interval: Interval | None) -> str:
        return "" if figure is None else f"{figure:.1%}{spread(interval)}"

    def number(figure: float | None, interval: Interval | None) -> str:
        return "" if figure is None else f"{figure:.3f}{spread(interval, 1, 3)}"

    def perplexity(scores: Scores) -> str:
        if scores.brier is not None or scores.error is not None:  # its loss is of no tokens
            return ""
        return f"{scores.perplexity:,.3f}" if scores.perplexity < 1e6 else f"{scores.perplexity:.2e}"

    if rewarded(before) or rewarded(after):
        names = dict.fromkeys(name for side in (before, after) if side for name in side.watched)
        return table(measures_of(list(names)), before, after)
    measures = {
        "accuracy": lambda s: share(s.accuracy, s.interval),
        "macro F1": lambda s: share(s.macro_f1, s.macro_f1_interval),
        "mean error": lambda s: number(s.error, s.error_interval),
        "correlation": lambda s: number(s.correlation, s.correlation_interval),
        "one rater agrees": lambda s: share(s.one_rater, s.one_rater_interval),
        "half of the raters agree": lambda s: share(s.half_of_raters, s.half_of_raters_interval),
        "calibration error": lambda s: share(s.calibration_error, s.calibration_error_interval),
        "Brier score": lambda s: "" if s.brier is None else f"{s.brier:.4f}{spread(s.brier_interval, 1, 4)}",
        "loss": lambda s: f"{s.loss:.4f}",
        "perplexity": perplexity,
        "rows": lambda s: f"{s.n:,}",
    }
    return table(measures, before, after)


def table(
    measures: Mapping[str, Callable[[Scores], str]], before: Scores | None, after: Scores | None
) -> list[tuple[str, str, str]]:
    """A row for each measure that says something of a side."""
    rows = [(name, *(say(side) if side else "" for side in (before, after))) for name, say in measures.items()]
    return [(name, first, second) for name, first, second in rows if first or second]


def percents(interval: Interval) -> str:
    return bounds(interval, 100, 1)


def bounds(interval: Interval, times: int, digits: int) -> str:
    return " to ".join(f"{times * end:.{digits}f}" for end in interval)


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def word(value: Any) -> str:
    """A setting's value as a recipe would write it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def short(text: str, most: int = 600) -> str:
    """The beginning of a text, and how much is left out."""
    return text if len(text) <= most else f"{text[:most]} … ({len(text) - most:,} more characters)"


def visible(text: str) -> str:
    """A text as it may be shown: control characters, and marks that turn the direction of writing, as pictures."""
    return "".join(map(picture_of, text))


def picture_of(letter: str) -> str:
    if letter in "\n\t":
        return letter
    if letter < " ":
        return chr(0x2400 + ord(letter))
    turns = "\u202a" <= letter <= "\u202e" or "\u2066" <= letter <= "\u2069"
    return "\ufffd" if turns or unicodedata.category(letter) in ("Cc", "Cs") else letter


# pictures


def charts(facts: Facts) -> dict[str, dict[str, Any] | None]:
    """The curves of the page, by their titles."""
    return {
        "Reward": chart({"training": facts.rewards}, "reward"),
        "Loss": chart({"training": facts.losses, "held out": facts.evals}, "loss"),
    }


def picture(facts: Facts) -> bytes:
    """The loss over the steps as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.6))
    FigureCanvasAgg(figure)
    figure.subplots_adjust(left=0.11, right=0.98, bottom=0.14, top=0.94)  # to have it found takes as long as to draw
    axes = figure.subplots()
    axes.set(xlabel="step", ylabel="loss")
    axes.grid(color="#b9c7d6", linewidth=0.4)
    lines = [("training", facts.losses, "#2563a8", "-"), ("held out", facts.evals, "#b4561f", "--")]
    found = [(name, finite(points), colour, dash) for name, points, colour, dash in lines if finite(points)]
    for name, points, colour, dash in found:
        marker = "o" if len(points) < 60 else ""
        axes.plot(*zip(*points, strict=True), label=name, color=colour, linestyle=dash, marker=marker, markersize=3)
    if found:
        axes.legend()
    else:
        axes.text(0.5, 0.5, "no loss was logged", ha="center", va="center", transform=axes.transAxes)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110)
    return out.getvalue()
