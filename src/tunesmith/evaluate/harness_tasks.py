"""Which tasks lm-eval is to ask: by their names in it, or as YAML files describe them."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..config.registry import did_you_mean
from ..config.yaml import read_yaml
from ..errors import BadEnvironment, RecipeError

FILES = {"json", "csv", "parquet", "text"}
"""What a task's own data may be; others that datasets reads can hold programs."""
RUNS = ("class", "custom_dataset", "unsafe_code", "use_prompt", "group")
"""Keys of a task that run a program, or bring other tasks."""


def refuse_without() -> None:
    """Refuse where lm-eval is not installed."""
    if find_spec("lm_eval") is None:
        raise BadEnvironment("--harness: needs the package lm-eval; pip install 'tunesmith[harness]'")


def tasks_of(words: Sequence[str]) -> dict[str, Any]:
    """Tasks with their data, as lm-eval asks them. A word names one of its own, several of them after commas, a YAML
    file, or a folder of such."""
    refuse_without()
    names = [name for word in words if not is_place(word) for name in word.split(",") if name]
    described = [task for word in words if is_place(word) for task in at(Path(word).expanduser())]
    if twice := {name for name, _ in described if sum(name == other for other, _ in described) > 1}:
        raise RecipeError(f"--harness: the task {min(twice)} is described twice; give each a name of its own")
    with quiet(), sandboxed():
        from lm_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports] - an extra

        manager = TaskManager(include_defaults=bool(names))
        for name in names:
            if name not in manager.all_tasks:
                raise RecipeError(f"--harness: lm-eval has no task '{name}'; {near(name, manager.all_tasks)}")
        found = [
            one for name, what in [*zip(names, names, strict=True), *described] for one in made(manager, name, what)
        ]
        return manager.load(found)


def is_place(word: str) -> bool:
    """Whether a word names a file or a folder."""
    return Path(word).expanduser().exists() or word.endswith((".yaml", ".yml")) or "/" in word


def near(name: str, known: Sequence[str]) -> str:
    said = did_you_mean(name, known)
    return said if said.startswith("did") else "`lm-eval ls tasks` lists them"


def made(manager, name: str, what: Any) -> list[Any]:
    """A task, or those of a group, with their data. Raises Refusal."""
    try:
        found = manager._load_spec(what)
    except OSError as error:  # what datasets raises that are not there, and not to be had
        raise BadEnvironment(
            f"--harness: the data of {name} cannot be read: {first_line(error)}; fetch them where there is a network"
            " (they are kept in the Hugging Face cache), or describe a task over files of your own in YAML"
        ) from None
    except Exception as error:  # noqa: BLE001 - somebody else's code and templates: they may fail in any way
        raise RecipeError(f"--harness: {name} cannot be asked: {type(error).__name__}: {first_line(error)}") from None
    return found if isinstance(found, list) else [found]


def first_line(error: Exception) -> str:
    return (str(error).strip().split("\n") or [""])[0][:300].rstrip(".")


# --- YAML files -------------------------------------------------------------------------------------------------------


def at(place: Path) -> list[tuple[str, dict[str, Any]]]:
    """The tasks that a file describes, or the files of a folder; of these, what others include is none."""
    if not place.exists():
        raise RecipeError(f"--harness: {place} is not there; name a YAML file of a task, a folder of such, or a task")
    files = sorted(place.rglob("*.yaml")) if place.is_dir() else [place]
    found = [(file, described(file)) for file in files]
    tasks = [checked(file, said) for file, said in found if "task" in said or file == place]
    if not tasks:
        raise RecipeError(f"--harness: {place} has no YAML file with the key task; docs/harness.md shows one")
    return tasks


def described(file: Path, within: tuple[Path, ...] = ()) -> dict[str, Any]:
    """What a file says, over what it includes. Raises RecipeError, also for programs, which are written with a tag."""
    if file in within:
        raise RecipeError(f"--harness: {file} includes itself; take the line away")
    try:
        said = read_yaml(file.read_text(encoding="utf-8"), str(file)).value
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"--harness: {file} cannot be read: {error}") from None
    included = said.pop("include", None) or []
    under: dict[str, Any] = {}
    for name in [included] if isinstance(included, str) else included:
        under |= described(file.parent / str(name), (*within, file))
    return under | said


def checked(file: Path, said: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """A task by its name. Raises RecipeError for what would run programs."""
    if not isinstance(said.get("task"), str):
        raise RecipeError(f"--harness: {file}: the key task is missing; it is the task's name")
    if odd := [key for key in RUNS if said.get(key)]:
        raise RecipeError(f"--harness: {file}: the key {odd[0]} is not taken of files; describe one task, without code")
    for one in said.get("metric_list") or []:
        refuse_metric(file, one)
    return said["task"], said | data_of(file, said)


def refuse_metric(file: Path, one: Any) -> None:
    """Refuse a metric that lm-eval does not have, which it would fetch as a program."""
    import lm_eval.api.metrics  # noqa: F401 - which fills the registry  # pyright: ignore[reportMissingImports]
    from lm_eval.api.registry import METRIC_REGISTRY  # pyright: ignore[reportMissingImports] - an extra

    name = one.get("metric") if isinstance(one, dict) else one
    if not isinstance(one, dict) or name not in METRIC_REGISTRY or one.get("hf_evaluate"):
        known = ", ".join(sorted(METRIC_REGISTRY))
        raise RecipeError(f"--harness: {file}: metric_list: {name} is no metric of lm-eval; known: {known}")


def data_of(file: Path, said: dict[str, Any]) -> dict[str, Any]:
    """Where a task's data are: files beside it, or org/name on Hugging Face."""
    path, more = said.get("dataset_path"), said.get("dataset_kwargs") or {}
    if not isinstance(path, str) or not isinstance(more, dict) or (path not in FILES and "/" not in path):
        raise RecipeError(
            f"--harness: {file}: dataset_path: must be {', '.join(sorted(FILES))}, with dataset_kwargs.data_files, or"
            f" org/name on Hugging Face (got {path})"
        )
    if "trust_remote_code" in more:
        raise RecipeError(f"--harness: {file}: dataset_kwargs.trust_remote_code: no code of data is run; leave it out")
    if path not in FILES:
        return {}
    if not more.get("data_files"):
        raise RecipeError(f"--harness: {file}: dataset_kwargs.data_files is missing; name the files of each split")
    return {"dataset_kwargs": more | {"data_files": beside(file, more["data_files"])}}


def beside(file: Path, named: Any) -> Any:
    """Names of data files as whole paths; they are looked for beside the file that names them."""
    if isinstance(named, dict):
        return {split: beside(file, one) for split, one in named.items()}
    if isinstance(named, list):
        return [beside(file, one) for one in named]
    there = file.parent / Path(str(named)).expanduser()
    if "://" in str(named) or not any(there.parent.glob(there.name)):
        raise RecipeError(f"--harness: {file}: dataset_kwargs.data_files: {named} is not there; expected {there}")
    return str(there.absolute())


# --- lm-eval ----------------------------------------------------------------------------------------------------------


@contextmanager
def sandboxed() -> Iterator[None]:
    """Within it lm-eval renders templates in jinja2's sandbox: they come with tasks, and the environment that it has
    (0.4.13) lets them reach every object of the program."""
    from jinja2 import StrictUndefined
    from jinja2.sandbox import SandboxedEnvironment
    from lm_eval import utils  # pyright: ignore[reportMissingImports] - an extra

    theirs = utils.env
    utils.env = SandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
    utils.env.filters.update(theirs.filters)
    try:
        yield
    finally:
        utils.env = theirs


@contextmanager
def quiet() -> Iterator[None]:
    """Within it lm-eval and datasets say what is wrong, and nothing of what they do."""
    logs = [logging.getLogger(name) for name in ("lm_eval", "datasets")]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            for log, level in zip(logs, levels, strict=True):
                log.setLevel(level)
