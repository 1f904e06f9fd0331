"""adapters merge."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from .show import line

How = Literal["linear", "cat", "svd", "ties", "dare_linear", "dare_ties", "magnitude_prune"]


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="What was learnt beside a model: merge.", no_args_is_help=True)
    group.callback()(lambda: None)  # with one command Typer would leave the group out
    group.command("merge")(merge)
    app.add_typer(group, name="adapters")


def merge(
    adapters: Annotated[list[str], typer.Argument(help="Folders of LoRA adapters for one base, or of their runs.")],
    out: Annotated[Path, typer.Option(help="The folder of the new adapter.")],
    base: Annotated[str, typer.Option(help="The model; as the first adapter says unless given.")] = "",
    how: Annotated[How, typer.Option(help="cat and svd take adapters of unlike ranks, the others of one.")] = "linear",
    weights: Annotated[str, typer.Option(help="A number for each adapter, such as 0.7,0.3; all 1 unless given.")] = "",
    density: Annotated[float, typer.Option(help="Share kept by ties, dare and prune.", min=0.01, max=1)] = 0.5,
) -> None:
    """Make one adapter of several: their weighted sum (linear, cat, svd), or that of what is left when small or random
    parts are dropped (ties, dare, magnitude_prune)."""
    from ..errors import RecipeError
    from ..model.adapter import locate_adapter
    from ..model.combine import combine

    folders = [locate_adapter(name, "adapters merge") for name in adapters]
    try:
        shares = [float(number) for number in weights.split(",")] if weights else [1.0] * len(folders)
    except ValueError:
        raise RecipeError(f"--weights: must be numbers with commas between them (got {weights})") from None
    if len(shares) != len(folders) or len(folders) < 2:
        raise RecipeError(f"--weights: {len(shares)} weights for {len(folders)} adapters; name two adapters or more")
    if out.exists():
        raise RecipeError(f"--out: {out} is there already; name a new folder")
    combine(folders, shares, base, out, {"combination_type": how, "density": density})
    line(f"saved {out}: {how} of {len(folders)} adapters")
