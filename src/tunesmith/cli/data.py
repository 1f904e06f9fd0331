"""The commands that look at data."""

import typer

from .data_convert import convert
from .data_lint import lint
from .data_preview import preview
from .data_split import split
from .data_stats import stats
from .train import WORDS


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Look at what is learnt.", no_args_is_help=True)
    for command in (preview, lint, stats, convert):
        group.command(command.__name__, context_settings=WORDS)(command)
    group.command("split")(split)  # it takes no keys, so that a misspelt option is refused
    app.add_typer(group, name="data")
