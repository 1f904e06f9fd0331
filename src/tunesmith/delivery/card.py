"""The model card: what was trained, on what, with what result, and how far the delivered model is from it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config.load import dump, to_yaml
from ..evaluate.retention import sentence
from ..model.demo import MODELS
from .proof import Apart

if TYPE_CHECKING:
    from ..run import Run
    from .base import Way
    from .source import Source

LICENCE = re.compile(r"^license(?:_name)?:\s*['\"]?([\w.+-]+)", re.MULTILINE)


def card(source: Source, way: Way, apart: Apart, adapter: bool) -> str:
    """A README.md with the front matter that model hubs read."""
    run, found = source.tuned.run, source.tuned.folder.facts
    name, licence = source.tuned.folder.path.resolve().name, licence_of(run.model.path)
    parts = [
        "---",
        f"base_model: {run.model.path}",
        *([f"license: {licence}"] if licence else []),
        f"library_name: {'peft' if adapter else way.library}",
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
        "## Forgetting",
        "",
        forgetting(found),
        "",
        "## Data",
        "",
        *sources(run, found),
        "## Delivered",
        "",
        f"As {way.name}: " + ", ".join(f"{key} {value}" for key, value in dump(way).items() if key != "name") + ".",
        f"Loaded again in a new process and held against the model as it was trained: {apart.sentence()}.",
        "",
        "## Licence",
        "",
        licence_said(run.model.path, licence),
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
    """The figures before and after, on held-out rows."""
    result = found.get("result") or {}
    before, after = result.get("before") or {}, result.get("after") or {}
    rows = [key for key, value in after.items() if isinstance(value, int | float) and not isinstance(value, bool)]
    if not rows:
        return ["The run was not measured.", ""]
    lines = [f"On {after.get('n', '?')} held-out rows:", "", "| | before | after |", "|-|-|-|"]
    for key in rows:
        if key != "n":
            lines.append(f"| {key.replace('_', ' ')} | {shown(before, key)} | {shown(after, key)} |")
    return [*lines, ""]


def shown(side: dict[str, Any], key: str) -> str:
    value, interval = side.get(key), side.get("interval" if key == "accuracy" else f"{key}_interval")
    if value is None:
        return ""
    return f"{value:.4g}" + (f" ({interval[0]:.3g} to {interval[1]:.3g})" if interval else "")


def forgetting(found: dict[str, Any]) -> str:
    """What is left of what the model knew beside its task."""
    kept = found.get("retention", {}).get("kept")
    if not kept:
        return "Not measured; eval.retention=true has a run ask before and after what the model knows of other things."
    said = sentence({name: (share, (low, high)) for name, (share, low, high) in kept.items()})
    return f"Held against the model before training, {said}."


def sources(run: Run, found: dict[str, Any]) -> list[str]:
    """What was learnt from, and who made its labels where that was a judge."""
    places = [run.data.path, *(str(one.path) for one in run.data.also)]
    counts = "; ".join(f"{number:,} {what}" for what, number in found.get("counts", {}).items() if number)
    judges = [f"- {one['said']}" for one in found.get("judges", ())]
    told = ["Judged by a model:", "", *judges, ""] if judges else []
    return [f"{', '.join(places)}: {counts or 'not counted'}", "", *told]


def licence_of(model: str) -> str:
    """A base model's licence by the name that hubs have for it, where its folder says so."""
    file = Path(model).expanduser() / "README.md"
    if not file.is_file():
        return ""
    _, _, rest = file.read_text(encoding="utf-8", errors="replace").partition("---\n")
    said = LICENCE.search(rest.partition("\n---")[0])
    return said[1] if said else ""


def licence_said(model: str, licence: str) -> str:
    if model in MODELS:
        return MODELS[model].licence
    if licence:
        return f"That of the base model, {licence}."
    return "That of the base model; look there before you hand this on."
