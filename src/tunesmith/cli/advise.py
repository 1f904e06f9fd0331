"""advise."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import RecipeError
from .show import chinese, json_out, line, table
from .train import WORDS, Json

if TYPE_CHECKING:
    from ..plan.advise import Advice, Keep
    from ..run import Run


def register(app: typer.Typer) -> None:
    app.command(context_settings=WORDS)(advise)


def advise(  # noqa: PLR0913 - each is an option
    context: typer.Context,
    recipe: Annotated[Path, typer.Argument(help="A recipe; key=value may follow.")],
    apply: Annotated[bool, typer.Option("--apply", help="Write what conflicts into the recipe.")] = False,
    far: Annotated[
        bool, typer.Option("--far", help="The domain is far from what models read, as medicine is.")
    ] = False,
    rows: Annotated[int | None, typer.Option(help="Rows to assume, where the data are not here.", min=1)] = None,
    device: Annotated[str | None, typer.Option(help="cpu, or a GPU such as a100-80gb; else this machine.")] = None,
    trial: Annotated[
        bool, typer.Option("--trial", help="Search a learning rate and a rank by short runs on these data.")
    ] = False,
    budget: Annotated[str, typer.Option(help="What a trial may use: 10m by the clock, 400steps or 1e6tokens.")] = "",
    seeds: Annotated[
        int, typer.Option(help="Seeds that a trial's best setting is run under, for the noise.", min=2)
    ] = 3,
    out: Annotated[Path, typer.Option(help="A trial's folder; what has run is not run again.")] = Path("trial"),
    as_json: Json = False,
) -> None:
    """Say what is wise for a recipe, why, and by whom it was found; and where the recipe says otherwise."""
    from ..config.load import load
    from ..files import write
    from ..migrate import RENAMED
    from ..plan.advise import advise as rules
    from ..plan.advise import keeps, settled
    from ..run import Run
    from .trial import asked, tried

    loaded = load(Run, recipe, context.args, renamed=RENAMED)
    facts = gathered(loaded.value, rows, device, far)
    found = rules(loaded.value, loaded.origins, facts)
    if apply:
        check_writable(recipe, context.args)
    if trial or budget:
        tried(asked(recipe, context.args, (trial, budget, seeds, out), facts.get("steps")), found, apply, as_json)
        return
    conflicts = [one for one in found if one.conflict]
    if apply:
        known = {key: facts[key] for key in KNOWN if key in facts}
        text, conflicts = settled(recipe.read_text(encoding="utf-8"), lambda text: objections(text, known))
        write(recipe, text)
    if as_json:
        advice = {"advice": [one.as_json() for one in found], "keeps": [one.as_json() for one in keeps(facts)]}
        json_out({"facts": shown(facts)} | advice | {"applied": apply})
        return
    table(f"{recipe}: {circumstance(facts)}", ["key", "is", "wise", "usual"], map(row, found))
    tell(recipe, conflicts, apply)
    for sentence in remembering(recipe, loaded.value, keeps(facts)):
        line(sentence)


def tell(recipe: Path, conflicts: list[Advice], applied: bool) -> None:
    """Say what the advisor has against a recipe, and what was done about it."""
    for one in conflicts:
        line(one.sentence(chinese()))
    if not conflicts:
        line("nothing to object to")
    elif applied:
        line(f"{len(conflicts)} written into {recipe}")
    else:
        line(f"`tunesmith advise {recipe} --apply` writes these {len(conflicts)} into it")


def remembering(recipe: Path, run: Run, ways: list[Keep]) -> Iterator[str]:
    """What keeps more of what the model knew before, and how to see what each costs and saves."""
    if not ways:
        return
    yield ""
    yield "若要少遗忘原有知识：" if chinese() else "To keep more of what the model knew:"
    for one in ways:
        yield f"  {one.said}\n      {one.zh if chinese() else one.en} ({one.source})"
    variants = ", ".join([run.method.name, *(f"{run.method.name} {one.said}" for one in ways)])
    yield "以下命令给出各自的效果与代价：" if chinese() else "what each saves and costs:"
    yield f'  tunesmith compare {recipe} --methods "{variants}"'


def check_writable(recipe: Path, words: list[str]) -> None:
    """Refuse to write into a recipe what is meant for another one."""
    from ..config.yaml import read_yaml

    if words:
        raise RecipeError(f"--apply: writes into {recipe}; leave out {' '.join(words)}")
    if "base" in read_yaml(recipe.read_text(encoding="utf-8"), str(recipe)).value:
        raise RecipeError(f"--apply: {recipe} is based on another one; apply to that, or write its keys here")


KNOWN = ("parameters", "rows", "far", "device", "room", "bf16")
"""Facts that no recipe's text changes."""


def objections(text: str, known: dict[str, Any]) -> list[Advice]:
    """What the advisor has against a recipe's text, given what is known beside it."""
    from ..config.load import load
    from ..migrate import RENAMED
    from ..plan.advise import advise, circumstances
    from ..run import Run

    made = load(Run, text=text, renamed=RENAMED)
    return [one for one in advise(made.value, made.origins, circumstances(made.value, **known)) if one.conflict]


def row(one: Advice) -> list[str]:
    from ..plan.advise import word

    figure = one.key if one.of == one.key else f"{one.key} ({one.of})"
    return [figure, word(one.got) + (" !" if one.conflict else ""), word(one.value), one.range]


def gathered(run: Run, rows: int | None, device: str | None, far: bool) -> dict[str, Any]:
    """The facts that rules ask for, as far as they can be had: what cannot be told is left out, and rules that need it
    do not hold."""
    from ..plan.advise import circumstances, counted
    from ..plan.known import parameters

    return circumstances(run, parameters(run.model.path), rows or counted(run), far=far, **where(device))


def where(device: str | None) -> dict[str, Any]:
    """Whether a device is a GPU, its memory and whether it has bf16; a processor is not measured for it."""
    import torch

    from ..plan.device import device as named

    if device == "cpu" or (device is None and not torch.cuda.is_available()):
        return {"device": "cpu"}
    one = named(device)
    return {"device": one.kind, "room": one.memory, "bf16": one.bf16}


def shown(facts: dict[str, Any]) -> dict[str, Any]:
    """The facts that are no settings."""
    return {key: value for key, value in facts.items() if "." not in key}


def circumstance(facts: dict[str, Any]) -> str:
    """What the advice rests on, in words."""
    said = [f"{facts['parameters']:,} parameters" if "parameters" in facts else "a model of unknown size"]
    said.append(f"{facts['rows']:,} rows" if "rows" in facts else "data that are not here")
    return ", ".join([*said, f"{facts['method']}, {facts['objective']}"])
