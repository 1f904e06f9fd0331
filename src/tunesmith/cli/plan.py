"""plan."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import RecipeError
from .show import chinese, json_out, line, table
from .train import WORDS, Json

if TYPE_CHECKING:
    from ..plan.changes import Way
    from ..plan.estimate import Plan, Setting


def register(app: typer.Typer) -> None:
    app.command(context_settings=WORDS)(plan)


def plan(  # noqa: PLR0913 - each is an option
    context: typer.Context,
    recipe: Annotated[Path, typer.Argument(help="A recipe; key=value may follow.")],
    device: Annotated[str | None, typer.Option(help="cpu, or a GPU such as a100-80gb; else this machine.")] = None,
    devices: Annotated[int, typer.Option(help="How many of them.", min=1)] = 1,
    shard: Annotated[bool, typer.Option("--shard", help="Cut weights and states into one part a device.")] = False,
    price: Annotated[float | None, typer.Option(help="What an hour of one device costs.", min=0)] = None,
    rows: Annotated[int | None, typer.Option(help="Rows to assume, where the data are not here.", min=1)] = None,
    tokens: Annotated[int | None, typer.Option(help="Tokens a row to assume.", min=1)] = None,
    as_json: Json = False,
) -> None:
    """Tell what a run will take before anything is loaded: memory, time, cost, and what makes it fit.

    The model's weights are not needed: its config.json is enough, or a well-known name such as Qwen/Qwen2-1.5B.
    """
    if shard and devices == 1:
        raise RecipeError("--shard: one device has nobody to share with; add --devices 8, for one")
    from ..config.load import load
    from ..migrate import RENAMED
    from ..plan.advise import advise, circumstances
    from ..plan.changes import ways
    from ..plan.device import device as named
    from ..plan.estimate import Setting
    from ..run import Run
    from ..training import planned

    loaded = load(Run, recipe, context.args, renamed=RENAMED)
    run, setting = loaded.value, Setting(named(device), devices, shard, price)
    say = (lambda _: None) if as_json else line
    made, read, found = planned.asked(run, setting, (rows, tokens), say)
    tried = [] if made.fits else ways(run, setting, lambda run, where: planned.plan(run, where, read, found))
    there = setting.device
    where = {"device": there.kind, "room": there.memory * (devices if shard else 1), "bf16": there.bf16}
    facts = circumstances(run, made.parameters, len(read.sequences) // run.objective.rendered, **where)
    warned = advise(run, loaded.origins, facts)
    warned = [one for one in warned if one.conflict]
    if as_json:
        json_out(as_tree(made, setting, found.source, tried) | {"advice": [one.as_json() for one in warned]})
        return
    show(made, setting, f"{run.model.path}, by {found.source}", tried)
    for one in warned:
        line(f"advice: {one.sentence(chinese())}")


def as_tree(made: Plan, setting: Setting, source: str, tried: list[Way]) -> dict[str, Any]:
    where = {"name": setting.device.name, "memory": setting.device.memory, "source": setting.device.source}
    more = {"fits": made.fits, "hours": made.hours, "model": source, "devices": setting.devices, "shard": setting.shard}
    return asdict(made) | more | {"device": where, "ways": [asdict(way) | {"fits": way.fits} for way in tried]}


def show(made: Plan, setting: Setting, source: str, tried: list[Way]) -> None:
    """A plan for a person: memory by what it is for, time, whether it fits, and what makes it fit."""
    count = f"{setting.devices} x " if setting.devices > 1 else ""
    line(f"model: {source}: {made.parameters:,} parameters, {made.trainable:,} of them learn")
    line(f"device: {count}{setting.device.name}, {setting.device.memory:.1f} GB ({setting.device.source})")
    largest = sorted(made.memory.items(), key=lambda one: -one[1])
    rows = [[name, f"{size:.2f}"] for name, size in largest if abs(size) >= 0.005]
    table("Memory on each device, GB of 2^30 bytes", ["", ""], [*rows, ["together", f"{made.peak:.2f}"]])
    line(f"time: {lasting(made.step_seconds)} a step, {made.steps:,} steps: {lasting(made.train_seconds)}")
    line(f"      and {lasting(made.more_seconds)} to measure before and after; {made.tokens:,.0f} tokens in all")
    if made.cost is not None:
        line(f"cost: {made.cost:,.2f}")
    if made.corrected:
        by = made.corrected
        line(f"corrected by {by['runs']} runs here: memory x {by['memory']:.2f}, time x {by['time']:.2f}")
    for one in made.assumed:
        line(f"assumed: {one}")
    line(verdict(made, tried))
    if tried:
        shown = [
            [" ".join(way.words), f"{way.peak:.1f}", lasting(way.step_seconds), "yes" if way.fits else "no"]
            for way in tried
        ]
        table("What would change it", ["", "GB", "a step", "fits"], shown)


def verdict(made: Plan, tried: list[Way]) -> str:
    """Whether a run fits, and the cheapest way to make it."""
    if made.fits:
        return f"it fits: {made.room - made.peak:.1f} GB are left"
    lacking = f"it does not fit: {made.peak - made.room:.1f} GB are lacking"
    fitting = [way for way in tried if way.fits]
    if not fitting:
        return f"{lacking}, and nothing that was tried makes it fit"
    return f"{lacking}; the cheapest way: {' '.join(fitting[0].words)}"


def lasting(seconds: float) -> str:
    """A time in the unit that suits it."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if seconds >= 1.5 * size or unit == "s":
            return f"{seconds / size:,.1f} {unit}"
    return ""
