"""advise --trial: a search for a learning rate and a rank."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RecipeError
from .show import json_out, line, table

if TYPE_CHECKING:
    from ..compare.outcome import Outcome, Setting, Tried
    from ..compare.trial import Asked
    from ..plan.advise import Advice

NEEDS = "--trial: name what it may use, such as --budget 10m, 400steps or 1e6tokens"


def asked(recipe: Path, words: list[str], limits: tuple[bool, str, int, Path], steps: float | None) -> Asked:
    """What is asked for, from the options."""
    from ..compare.budget import Budget
    from ..compare.trial import Asked

    trial, said, seeds, out = limits
    if not trial:
        raise RecipeError("--budget: is what a trial may use; add --trial, or leave it out")
    if not said:
        raise RecipeError(NEEDS)
    return Asked(recipe, tuple(words), Budget.read(said), out, seeds, steps)


def tried(one: Asked, advice: list[Advice], apply: bool, as_json: bool) -> None:
    """Search, show what was found, keep it in a folder, and write the winner into the recipe if told to."""
    from ..compare.trial import Trial
    from ..files import write
    from ..plan.advise import applied
    from ..training.progress import Progress

    found = Trial(one, advice, Progress(quiet=as_json).say).go()
    text = one.recipe.read_text(encoding="utf-8")
    changes = won(found, one.recipe, text) if apply else []
    if changes:
        write(one.recipe, applied(text, changes))
    said = found.as_json() | {"applied": {change.key: change.value for change in changes}}
    one.out.mkdir(parents=True, exist_ok=True)
    write(one.out / "trial.json", json.dumps(said, indent=1, ensure_ascii=False))
    write(one.out / "trial.md", page(found, one.recipe))
    if as_json:
        json_out(said)
        return
    table(f"{one.recipe}: loss on validation rows", head(found), [cells(found, *row) for row in found.rows])
    for sentence in found.sentences():
        line(sentence)
    if changes:
        line(f"written into {one.recipe}: {', '.join(f'{change.key}={change.value}' for change in changes)}")
    elif apply:
        line(f"{one.recipe} stays as it is")
    elif found.winner:
        line(f"`tunesmith advise {one.recipe} --trial ... --apply` writes it into the recipe, and runs nothing anew")
    line(f"{one.out / 'trial.md'}")


def won(found: Outcome, recipe: Path, text: str) -> list[Advice]:
    """What the winner changes in a recipe, as advice; nothing if there is none."""
    from ..compare.trial import RANK, RATE, scaled
    from ..config.load import load
    from ..migrate import RENAMED
    from ..run import Run

    if found.winner is None:
        return []
    run, setting = load(Run, text=text, renamed=RENAMED).value, found.winner.setting
    values: dict[str, Any] = {}
    if setting.rate != run.train.learning_rate:
        values[RATE] = setting.rate
    own = getattr(run.method, "r", None)
    if setting.rank and setting.rank != own:
        values[RANK] = setting.rank
        if alpha := scaled(run.method, setting.rank):
            values["method.lora_alpha"] = alpha
    return [advice(key, value) for key, value in values.items()]


def advice(key: str, value: Any) -> Advice:
    from ..plan.advise import Advice

    nothing: dict[str, Any] = {"low": None, "high": None, "among": (), "got": None, "origin": ""}
    return Advice(rule="trial", key=key, value=value, of=key, en="", zh="", source="a trial", **nothing)


def head(found: Outcome) -> list[str]:
    rungs = [f"{steps} steps" for steps in found.rungs]
    return ["learning rate", "rank", *rungs, "other seeds", ""]


def cells(found: Outcome, one: Tried, verdict: str) -> list[str]:
    setting: Setting = one.setting
    rungs = [f"{one.rungs[steps]:.4g}" if steps in one.rungs else "" for steps in found.rungs]
    again = ", ".join(f"{loss:.4g}" for loss in one.again)
    return [f"{setting.rate:g}", str(setting.rank or ""), *rungs, again, verdict]


def page(found: Outcome, recipe: Path) -> str:
    """The same as Markdown."""
    rows = [head(found), ["-"] * len(head(found)), *(cells(found, *row) for row in found.rows)]
    said = [f"- {sentence}" for sentence in found.sentences()]
    lines = [f"| {' | '.join(cell.replace('|', ' ') for cell in row)} |" for row in rows]
    return "\n".join([f"# Trial of {recipe.name}: loss on validation rows", "", *lines, "", *said, ""])
