"""init, schema, version."""

import json
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import RecipeError
from .data_rows import BEGUN_WITH
from .show import json_out, line
from .train import Json

GOALS = {"sft": "answer as in the data", "classify": "tell classes apart", "pretrain": "continue text as in the data"}


def register(app: typer.Typer) -> None:
    app.command()(init)
    app.command()(schema)
    app.command()(version)


def init(
    model: Annotated[str, typer.Option(help="A folder, org/name, or demo/NAME.")] = BEGUN_WITH,
    data: Annotated[str, typer.Option(help="A file, a folder, org/name, or demo/NAME.")] = "demo/movie-reviews",
    goal: Annotated[str, typer.Option(help="sft, classify or pretrain; told from the data unless given.")] = "",
    to: Annotated[Path, typer.Option("--to", "-o", help="The file to write.")] = Path("recipe.yaml"),
) -> None:
    """Write a commented recipe for a model, a data file and a goal."""
    if goal and goal not in GOALS:
        raise RecipeError(f"--goal: must be one of {', '.join(GOALS)} (got '{goal}')")
    if to.exists():
        raise RecipeError(f"--to: {to} exists already; name another file")
    from ..config.describe import rows
    from ..data.reading.detect import LOOKED_AT, detect, options
    from ..data.reading.source import Named, read, splits
    from ..files import write
    from ..model.hub import locate_data
    from ..run import Run

    where = locate_data(data)
    first = [row.values for row in islice(read(splits(where)["train"]), LOOKED_AT)]
    if isinstance(where, Named):  # its dataset_info.json goes on saying how it is read
        format_, reading, said = where.format, where.format.described(), {"name": "auto"}
    else:
        format_, reading = detect(first, data)
        said = {"name": format_.name, **options(format_)}
    chosen = goal or {"labelled": "classify", "text": "pretrain"}.get(format_.name, "sft")
    docs = {
        row.path: row.doc for row in rows(Run) if not row.when or row.when in (f"objective={chosen}", "method=lora")
    }
    text, advice = advised(recipe(model, data, chosen, said, docs))
    write(to, text)
    line(f"{to}: {GOALS[chosen]}; {data} is {reading}")
    for sentence in advice:
        line(sentence)
    line(f"  tunesmith data preview {to}\n  tunesmith train {to}")


def advised(text: str) -> tuple[str, list[str]]:
    """A recipe with what is wise for its model and its data, and what that is in words."""
    from ..config.load import load
    from ..plan.advise import settled
    from ..run import Run
    from .advise import KNOWN, gathered, objections
    from .show import chinese

    facts = gathered(load(Run, text=text).value, None, None, False)
    known = {key: facts[key] for key in KNOWN if key in facts}
    text, done = settled(text, lambda text: objections(text, known))
    return text, [one.sentence(chinese()) for one in done]


def recipe(model: str, data: str, goal: str, format_: dict[str, Any], docs: dict[str, str]) -> str:
    """The recipe's text: the keys that matter first, each with its description; the rest are named at the end."""
    prompted = goal == "sft" and format_ == {"name": "labelled"}
    template = '{name: template, prompt: "Which of the labels fits?\\n\\n{text}", answer: "{label}"}'
    settings = {
        "model.path": model,
        "data.path": data,
        "data.format": template if prompted else json.dumps(format_) if len(format_) > 1 else format_["name"],
        "data.max_length": 512,
        "method.name": "lora",
        "method.r": 8,
        "objective": goal,
        "train.learning_rate": "2e-4",
        "train.num_train_epochs": 1,
        "train.per_device_train_batch_size": 8,
    }
    text, room = ["# A recipe for `tunesmith train`; every key may also be set on the command line as key=value."], ""
    for path, value in settings.items():
        parent, _, key = path.rpartition(".")
        if parent != room and parent:
            text.append(f"{parent}:")
        room, indent = parent, "  " if parent else ""
        doc = docs.get("method" if path == "method.name" else path)
        text += [f"{indent}# {' '.join(doc.split())}"] if doc else []
        text.append(f"{indent}{key}: {value}")
    return "\n".join([*text, "", "# All keys with their meaning: tunesmith schema", ""])


def schema() -> None:
    """The JSON Schema of a recipe, for editors that complete and check YAML."""
    from ..config.describe import json_schema
    from ..run import Run

    json_out(json_schema(Run))


def version(as_json: Json = False) -> None:
    """The versions that a result depends on."""
    from ..runs import versions

    found = versions()
    if as_json:
        json_out(found)
    else:
        for name, number in found.items():
            line(f"{name} {number}")
