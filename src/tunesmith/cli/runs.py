"""runs list, show, diff, compare, export, stop, resume, rm."""

from pathlib import Path
from typing import Annotated, Any

import typer

from . import runs_compare
from .show import json_out, line, table
from .train import Json, show

Folder = Annotated[Path, typer.Argument(help="A run's folder.")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(
        help="What was run, and what runs: list, show, diff, compare, export, stop, resume, rm.", no_args_is_help=True
    )
    group.command("list")(list_runs)
    group.command("show")(show_run)
    group.command("diff")(diff_runs)
    runs_compare.register(group)
    group.command("stop")(stop_run)
    group.command("resume")(resume_run)
    group.command("rm")(remove_run)
    app.add_typer(group, name="runs")


def list_runs(
    root: Annotated[Path, typer.Argument(help="The folder that holds the runs.")] = Path("runs"), as_json: Json = False
) -> None:
    """The runs in a folder, the oldest first."""
    from ..runs import listed

    runs = [brief(run.path, run.facts | {"status": run.status}) for run in listed(root)]
    if as_json:
        json_out(runs)
        return
    table(
        "",
        ["run", "status", "started", "before", "after", "seconds"],
        [[str(cell) for cell in run.values()] for run in runs],
    )


def brief(path: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """A run in one row."""
    result = facts.get("result") or {}

    def figure(side: str) -> str:
        scores = result.get(side) or {}
        accuracy, watched = scores.get("accuracy"), scores.get("watched") or {}
        if "reward_low" in watched:
            return f"reward {watched['reward']:.3f}"
        return f"{accuracy:.1%}" if accuracy is not None else f"loss {scores['loss']:.3f}" if scores else ""

    seconds = round(result.get("train_seconds", 0), 1)
    return {
        "run": str(path),
        "status": facts.get("status", ""),
        "started": facts.get("started", ""),
        "before": figure("before"),
        "after": figure("after"),
        "seconds": seconds,
    }


def show_run(run: Folder, as_json: Json = False) -> None:
    """Everything that is known of a run: its recipe, its data, its figures."""
    from .. import passport
    from ..config.load import to_yaml
    from ..runs import RunFolder

    opened = RunFolder(run)
    facts: dict[str, Any] = opened.facts | {"status": opened.status}
    known = passport.read(run) if (run / passport.NAME).exists() else {}
    if as_json:
        json_out(facts | {"passport": known})
        return
    line(f"{run}: {facts['status']}, started {facts.get('started')}")
    line()
    line(to_yaml(opened.recipe().value, passport.origins(known)))
    parts = {name: facts.get(name) for name in ("counts", "parameters", "result", "plan")}
    parts |= {name: known.get(name) for name in ("versions", "machine", "hashes")}
    for name, part in parts.items():
        for key, value in (part or {}).items():
            line(f"{name}.{key}: {value}")


def diff_runs(first: Folder, second: Folder, as_json: Json = False) -> None:
    """What differs between two runs: settings and figures."""
    from ..config.load import dump
    from ..runs import RunFolder

    sides = []
    for folder in (first, second):
        opened = RunFolder(folder)
        result = opened.facts.get("result") or {}
        sides.append(flat(dump(opened.recipe().value)) | flat({"result": result}))
    names = [name for name in dict.fromkeys([*sides[0], *sides[1]]) if sides[0].get(name) != sides[1].get(name)]
    rows = [(name, sides[0].get(name), sides[1].get(name)) for name in names]
    if as_json:
        json_out({name: [one, other] for name, one, other in rows})
        return
    table("", ["", str(first), str(second)], [[name, str(one), str(other)] for name, one, other in rows])


def flat(tree: Any, path: str = "") -> dict[str, Any]:
    """A tree as dotted paths."""
    if not isinstance(tree, dict):
        return {path: tree}
    return {
        name: value for key, branch in tree.items() for name, value in flat(branch, f"{path}.{key}".lstrip(".")).items()
    }


def stop_run(
    run: Folder,
    timeout: Annotated[float, typer.Option(help="Seconds to wait until it has saved.", min=0)] = 60,
    as_json: Json = False,
) -> None:
    """Have a run that is going on save and end, as Ctrl-C would; `runs resume` goes on with it."""
    from ..owner import owner, stop
    from ..runs import RunFolder

    opened, ran = RunFolder(run), owner(run) is not None
    stop(run, timeout)
    begun = not ran or (run / "run.json").exists()
    status = opened.status if begun else ""
    reason = opened.facts["reason"] if status in ("stopped", "interrupted") else ""
    if as_json:
        json_out({"run": str(run), "ran": ran, "status": status, "reason": reason})
    elif not ran:
        line(f"{run}: does not run; its status is {status}")
    else:
        line(f"{run}: {reason or status or 'ended before there was anything to save'}")


def resume_run(run: Folder, as_json: Json = False) -> None:
    """Go on with a run that was stopped or died, as `train --resume` does."""
    from ..training.train import resume

    show(resume(run), as_json)


def remove_run(run: Folder, as_json: Json = False) -> None:
    """Remove a run's folder with all that it learnt; not while it runs."""
    from ..runs import RunFolder, discard

    freed = discard(RunFolder(run))
    if as_json:
        json_out({"run": str(run), "bytes": freed})
        return
    line(f"removed {run}: {freed / 2**20:.1f} MB freed")
