"""eval --harness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RecipeError
from .show import json_out, line, table

if TYPE_CHECKING:
    from ..evaluate.harness import Result

HEAD = ["task", "measure", "", "95% interval", "standard error", "rows", "shots"]


def harness(place: str, words: Sequence[str], tasks: Sequence[str], adapter: str | None, options: dict[str, Any]):
    """Ask a run's result, or a model, what tasks of lm-eval ask; what is found goes into the run's folder."""
    from ..evaluate.harness_tasks import refuse_without, tasks_of

    refuse_without()
    from ..evaluate.harness import Asking, ask, made_with, refuse_ways
    from ..runs import RunFolder

    run = RunFolder(Path(place)) if (Path(place) / "recipe.yaml").is_file() else None
    asked = of_run(place, words, adapter) if run else of_model(place, words, adapter)
    how = Asking(**options)
    loaded = tasks_of(tasks)
    refuse_ways(loaded)
    found = ask(*asked(), loaded, how)
    facts = {"lm_eval": made_with(), "limit": how.limit, "chat": how.chat}
    by_task: dict[str, Any] = {}
    for one in found:
        by_task.setdefault(one.task, {**facts, "results": []})["results"].append(asdict(one))
    if run:
        run.note(harness=run.facts.get("harness", {}) | by_task)
    return by_task, found


def of_run(place: str, words: Sequence[str], adapter: str | None):
    """How a run's result is loaded, once tasks are known to be there. Raises Refusal."""
    from ..data.rendering.render import Renderer
    from ..tuned import load_run

    if adapter:
        raise RecipeError(f"--adapter: {place} is a run and has its own; name the model for another")
    tuned = load_run(place, words)
    tuned.refuse_to_write()
    tokenizer = tuned.tokenizer  # refuses a run that is not finished
    return lambda: (tuned.model, Renderer(tokenizer, tuned.run.data))


def of_model(place: str, words: Sequence[str], adapter: str | None):
    """How a model is loaded, under an adapter or none. Raises Refusal."""
    from ..data.rendering.render import Renderer
    from ..machine import to_ask
    from ..model.adapter import locate_adapter, refuse_strangers, under_adapter
    from ..model.hub import locate
    from ..model.load import hushed, load_model, load_tokenizer
    from ..run import Data

    if words:
        raise RecipeError(f"{' '.join(words)}: keys of a recipe go with a run, and {place} is none; leave them out")
    over = locate_adapter(adapter, "--adapter") if adapter else None
    base = locate(place)
    if over:
        refuse_strangers({"--adapter": over}, base)

    def load():
        model: Any = load_model(base)[0]
        with hushed():
            model = under_adapter(model, over) if over else model
        mine = over if over and (over / "tokenizer.json").is_file() else base
        return to_ask(model), Renderer(load_tokenizer(mine), Data(path="none"))

    return load


def show(place: str, found: Sequence[Result], version: str) -> None:
    """What was found, as a table."""
    rows = [
        [
            one.task, one.measure, f"{one.value:.4g}",
            f"{one.interval[0]:.4g} to {one.interval[1]:.4g}" if one.interval else "",
            "" if one.stderr is None else f"{one.stderr:.2g}", f"{one.rows:,}", str(one.shots),
        ]
        for one in found
    ]  # fmt: skip
    table(f"{place}, by lm-eval {version}", HEAD, rows)


def evaluate_by(place: str, words: Sequence[str], tasks: Sequence[str], options: dict[str, Any], as_json: bool) -> None:
    """The command."""
    adapter = options.pop("adapter")
    by_task, found = harness(place, words, tasks, adapter, options)
    if as_json:
        json_out(by_task)
        return
    from ..evaluate.harness import made_with

    show(place, found, made_with())
    if options["limit"]:
        line(f"of each task its first {options['limit']} rows alone")
