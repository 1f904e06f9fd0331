"""quickstart, train, eval."""

import re
import sys
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from shutil import which
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from ..errors import RecipeError
from .show import json_out, line, table

WORDS = {"allow_extra_args": True, "ignore_unknown_options": True}
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


class WithSettings(TyperCommand):
    """A command whose help ends with every key of a recipe."""

    def settings(self) -> type:
        from ..run import Run

        return Run

    def format_help(self, ctx: Any, formatter: Any) -> None:
        super().format_help(ctx, formatter)
        from ..config.describe import rows, words

        line("Keys, in a recipe or as key=value:\n")
        for row in rows(self.settings()):
            when = f"  [{row.when}]" if row.when else ""
            line(f"  {row.path}{when}: {words(row.type)}; {row.default}\n      {row.doc}")


def register(app: typer.Typer) -> None:
    app.command(context_settings=WORDS, cls=WithSettings)(quickstart)
    app.command(context_settings=WORDS, cls=WithSettings)(train)
    app.command("eval", context_settings=WORDS)(evaluate)


def quickstart(context: typer.Context, as_json: Json = False) -> None:
    """Tune a small real model on real film reviews, in a few minutes on a CPU. Takes key=value as train does."""
    carry_out(recipe_of_ours("quickstart"), context.args, as_json, "quickstart")


def train(
    context: typer.Context,
    recipe: Annotated[
        str | None, typer.Argument(help="A YAML file; what follows are key=value or --key value.")
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with the run in this folder.")] = None,
    as_json: Json = False,
) -> None:
    """Train as a recipe says, and measure before and after.

    Every key may be set in the recipe and on the command line; `tunesmith schema` and `tunesmith init` show them all.
    """
    words = list(context.args)
    if recipe and "=" in recipe and not Path(recipe).exists():
        recipe, words = None, [recipe, *words]
    if resume is None:
        if recipe is None and not words:
            raise RecipeError("train needs a recipe, such as recipes/quickstart.yaml; `tunesmith init` writes one")
        carry_out(Path(recipe) if recipe else None, words, as_json, named(recipe or ""))
        return
    if recipe or words:
        raise RecipeError(f"--resume goes on with the recipe in {resume}; leave out {' '.join([recipe or '', *words])}")
    from ..training.train import resume as go_on

    show(go_on(resume), as_json)


def named(recipe: str) -> str:
    """The name of a run, after its recipe."""
    return re.sub(r"[^\w.-]+", "-", Path(recipe).stem).strip(".-") or "run"


def carry_out(recipe: Path | None, words: list[str], as_json: bool, name: str) -> None:
    from ..config.load import load
    from ..migrate import RENAMED
    from ..run import Run

    loaded = load(Run, recipe, words, renamed=RENAMED)
    from ..training.train import train

    show(train(loaded.value, origins=loaded.origins, name=name), as_json)


Tasks = Annotated[list[str] | None, typer.Option(help="Ask lm-eval's TASK[,TASK], a YAML file or a folder of such.")]
Shots = Annotated[int | None, typer.Option(help="Solved examples before each question of --harness.", min=0)]
Limit = Annotated[int | None, typer.Option(help="So many of the first rows of each task of --harness.", min=1)]
Chat = Annotated[bool, typer.Option("--chat", help="Ask --harness by the model's chat template.")]
Batch = Annotated[int | None, typer.Option(help="Rows of --harness in one forward pass; 8 unless given.", min=1)]
Over = Annotated[str | None, typer.Option(help="An adapter over a model, for --harness.")]


def evaluate(  # noqa: PLR0913 - each is an option
    context: typer.Context,
    run: Annotated[str, typer.Argument(help="The run's folder; for --harness also a model.")],
    harness: Tasks = None,
    adapter: Over = None,
    shots: Shots = None,
    limit: Limit = None,
    chat: Chat = False,
    batch_size: Batch = None,
    as_json: Json = False,
) -> None:
    """Measure a run's result again, on the held-out rows of its recipe or others (data.eval_path=...).

    With --harness, on tasks of EleutherAI's lm-eval instead: published benchmarks, or such as a YAML file describes.
    """
    said = {"adapter": adapter, "shots": shots, "limit": limit, "chat": chat, "rows": batch_size}
    if harness:
        from .harness import evaluate_by

        evaluate_by(run, context.args, harness, said | {"rows": batch_size or 8}, as_json)
        return
    if odd := [name for name, value in said.items() if value]:
        raise RecipeError(f"--{odd[0].replace('rows', 'batch-size')}: goes with --harness; leave it out")
    from ..tuned import load_run

    measured = load_run(run, context.args).evaluate()
    if as_json:
        json_out(measured.scores.as_json())
        return
    from ..evaluate.report import summary

    table(str(run), ["", "", "now"], summary(None, measured.scores))


def recipe_of_ours(name: str) -> Path:
    """A recipe that ships with the package; in a checkout, one of recipes/."""
    shipped = Path(str(files("tunesmith"))) / "recipes" / f"{name}.yaml"
    return shipped if shipped.exists() else Path(__file__).parents[3] / "recipes" / f"{name}.yaml"


def show(result: Any, as_json: bool) -> None:
    """The outcome: one JSON object, or a table, five answers and what to try next."""
    facts = asdict(result)
    if as_json:
        json_out(facts)
        return
    from ..evaluate.metrics import Scores
    from ..evaluate.report import doubt, summary
    from ..runs import RunFolder

    run = RunFolder(Path(result.run))
    if result.after:
        before, after = Scores.from_json(result.before), Scores.from_json(result.after)
        table("", ["held-out rows", "before", "after"], summary(before, after))
        if said := doubt(before, after):
            line(said)
        samples = run.facts["samples"][:5]
        table(
            "Five of them",
            ["prompt", "right", "before", "after"],
            [[s[k] or "" for k in ("prompt", "gold", "before", "after")] for s in samples],
        )
    memory = f"at most {result.peak_memory_mb:.0f} MB"
    line(f"trained {result.train_seconds:.0f} s at {result.tokens_per_second:.0f} tokens/s, {memory}")
    kept = "adapter" if (run.path / "adapter").exists() else "model"
    line(f"the run: {result.run}  (report.html, recipe.yaml, {kept}/)")
    line("next:")
    for command in (f"chat {run.path}", f"eval {run.path}", f"runs show {run.path}"):
        line(f"  {called()} {command}")


def called() -> str:
    """What to type for this program: its file, where its folder is not on the path."""
    if which("tunesmith"):
        return "tunesmith"
    return f"{sys.executable} -m tunesmith" if sys.argv[0].endswith("__main__.py") else sys.argv[0]
