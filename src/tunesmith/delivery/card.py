"""The model card: what was trained, on what, with what result, and how far the delivered model is from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..config.load import dump, to_yaml
from ..model.demo import MODELS
from .proof import Apart

if TYPE_CHECKING:
    from .base import Way
    from .source import Source


def card(source: Source, way: Way, apart: Apart, adapter: bool) -> str:
    """A README.md with the front matter that model hubs read."""
    run, found = source.tuned.run, source.tuned.folder.facts
    known = MODELS.get(run.model.path)
    licence = known.licence if known else "that of the base model; look there before you hand this on"
    name = source.tuned.folder.path.resolve().name
    library = "peft" if adapter else "gguf" if way.name in ("gguf", "ollama") else "transformers"
    counts = "; ".join(f"{number:,} {what}" for what, number in found.get("counts", {}).items() if number)
    parts = [
        "---",
        f"base_model: {run.model.path}",
        f"library_name: {library}",
        "tags: [tunesmith, " + f"{run.method.name}, {run.objective.name}]",
        "---",
        "",
        f"# {name}",
        "",
        f"{run.model.path}, tuned by Tunesmith: objective {run.objective.name}, method {run.method.name}.",
        "",
        "## Result",
        "",
        *figures(found),
        "## Data",
        "",
        counts or "not recorded",
        "",
        "## Delivered",
        "",
        f"As {way.name}: " + ", ".join(f"{key} {value}" for key, value in dump(way).items() if key != "name") + ".",
        f"Loaded again in a new process and held against the model as it was trained: {apart.sentence()}.",
        "",
        "## Licence",
        "",
        licence,
        "",
        "## Recipe",
        "",
        "```yaml",
        to_yaml(run, {}).strip(),
        "```",
        "",
    ]
    return "\n".join(parts)


def figures(found: dict[str, Any]) -> list[str]:
    """The figures before and after, on held-out rows, and what a judge's labels were worth where there was one."""
    result = found.get("result") or {}
    before, after = result.get("before") or {}, result.get("after") or {}
    rows = [key for key, value in after.items() if isinstance(value, int | float) and not isinstance(value, bool)]
    if not rows:
        return ["The run was not measured.", ""]
    lines = [f"On {after.get('n', '?')} held-out rows:", "", "| | before | after |", "|-|-|-|"]
    for key in rows:
        if key != "n":
            lines.append(f"| {key.replace('_', ' ')} | {shown(before, key)} | {shown(after, key)} |")
    judged = found.get("judge") or found.get("calibration")
    return [*lines, "", *([f"Calibration of the judge: {judged}", ""] if judged else [])]


def shown(side: dict[str, Any], key: str) -> str:
    value, interval = side.get(key), side.get("interval" if key == "accuracy" else f"{key}_interval")
    if value is None:
        return ""
    return f"{value:.4g}" + (f" ({interval[0]:.3g} to {interval[1]:.3g})" if interval else "")
