"""data lint."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import DataError
from .data_rows import Base, What, rows_of
from .show import chinese, json_out, line, table
from .train import Json

if TYPE_CHECKING:
    from ..data.lint.report import Found, Report
    from ..data.reading.places import Place


def lint(
    context: typer.Context,
    what: What,
    model: Base = None,
    fix: Annotated[
        Path | None, typer.Option("--fix", help="Write a copy without the rows that have errors; what is there stays.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Find what is wrong with data: rows that spoil a run or its measure. Exit code 3 if there are errors.

    With --fix, what was removed and why stands in OUT.removed.jsonl. Without a model, what needs its tokenizer and
    template is not looked for.
    """
    from ..data.lint.report import SHOWN, Lint, rules

    rows = rows_of(what, model, context.args)
    if fix and (fix.exists() or removed_list(fix).exists()):
        raise DataError(f"--fix: {fix if fix.exists() else removed_list(fix)} is there already; name another file")
    shown = sys.maxsize if fix else SHOWN
    checks = Lint(rules(tokens=rows.renderer is not None), rows.renderer, rows.run.objective.targets, shown=shown)
    for looked in rows.folded(checks.looked):
        checks.take(looked)
    report = checks.report()
    removed = clean(report, rows.places[0], fix, Path(rows.run.data.path).is_dir()) if fix else {}
    if as_json:
        json_out(report.as_json() | ({"removed": sum(removed.values())} if fix else {}))
    else:
        show(report, rows.renderer is None)
        for file, count in removed.items():
            line(f"{file}: {count:,} rows removed")
    left = [found for found in report.errors if not (fix and found.rule.removable)]
    if left:
        codes = ", ".join(found.rule.name for found in left)
        mend = f"`tunesmith data lint {what} --fix OUT` writes a copy without them"
        these = mend if any(found.rule.removable for found in left) else "removing rows does not mend that"
        raise DataError(f"{what}: has errors: {codes}; {these}")


def show(report: Report, without_model: bool) -> None:
    """The report for a person: a table, then each rule with its rows and what to do."""
    from ..data.lint.report import title

    zh = chinese()
    line(f"{report.rows:,} rows" + ("; tokens and template are not checked without --model" if without_model else ""))
    if not report.found:
        line("nothing was found")
        return
    head = ["code", "severity", "rows", "what"]
    cells = [[f.rule.name, f.severity, f"{f.count:,}", f.rule.zh if zh else title(f.rule)] for f in report.found]
    table("", head, cells)
    for found in report.found:
        detail(found, zh)


def detail(found: Found, zh: bool) -> None:
    from ..data.lint.report import SHOWN

    line(f"\n{found.severity} {found.rule.name}")
    for origin, said in found.examples[:SHOWN]:
        line(f"  {origin}: {one_line(said[zh])}")
    if found.count > SHOWN:
        line(f"  ... and {found.count - SHOWN:,} more" if not zh else f"  ……另有 {found.count - SHOWN:,} 行")
    for part in found.rule.explained[zh].split("\n"):
        line(f"  {part}")


def one_line(text: str) -> str:
    return text.replace("\n", "\\n").replace("\t", "\\t")


# --- cleaned copies ---------------------------------------------------------------------------------------------------


def removed_list(out: Path) -> Path:
    return out.with_name(f"{out.name}.removed.jsonl")


def clean(report: Report, place: Place, out: Path, folder: bool) -> dict[str, int]:
    """Write a copy of a file, or of a folder's files, without the rows that have errors; how many went from each."""
    from ..data.writing import cleaned
    from ..data.writing.writers import harmless
    from ..files import whole

    reasons, files = why(report), dict(place.named())
    if len(files) > 1 and not folder:
        raise DataError(f"--fix: {place.name} is several files, of which no copy can be made; name their folder")
    [first, *_] = files.values()
    if not folder and out.suffix.lower() != first.suffix.lower():
        raise DataError(f"--fix: {out} must end with {first.suffix}, for the copy is of the same kind as {first.name}")
    if sum(len(reasons[str(file)]) for file in files.values()) >= report.rows:
        raise DataError(f"{place.root}: every row has an error, so that nothing would be left; is the recipe right?")
    counts, listed = {}, []
    for name, file in files.items():
        target, leave = out / name if folder else out, reasons[str(file)]
        gone = cleaned.copy(file, target, leave.keys())
        counts[str(target)] = len(gone)
        listed += [leave[spot] | {"row": row} for spot, row in zip(sorted(leave), gone, strict=True)]
    with whole(removed_list(out)) as beside:
        text = "".join(harmless(json.dumps(entry, ensure_ascii=False, default=str)) + "\n" for entry in listed)
        beside.write_text(text, encoding="utf-8")
    return counts


def why(report: Report) -> dict[str, dict[tuple[int, int], dict[str, Any]]]:
    """Of each file the rows to leave out, by their place in it, each with where it stood and what is wrong."""
    found: dict[str, dict[tuple[int, int], dict[str, Any]]] = defaultdict(dict)
    for each in report.found:
        if each.rule.severity != "error" or not each.rule.removable:
            continue
        for number, (origin, said) in zip(each.numbers, each.examples, strict=True):
            file, spot = report.places.within(number)
            entry = found[file].setdefault(spot, {"origin": origin, "why": []})
            entry["why"].append({"code": each.rule.name, "message": said._asdict()})
    return found
