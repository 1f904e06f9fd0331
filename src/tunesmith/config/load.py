"""From a recipe and `key=value` words to a record, or to every mistake in them at once; and back to YAML."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache, reduce
from pathlib import Path
from typing import Any, Generic, TypeVar

from ..errors import RecipeError
from .explain import explain
from .layers import WORDS, Key, Setting, choices, from_tree, lay, recipes, spoken, values
from .yaml import read_yaml

T = TypeVar("T")


@dataclass(frozen=True)
class Loaded(Generic[T]):
    """A record, and where each of its values came from."""

    value: T
    origins: dict[str, str]
    """Dotted path -> `default`, `recipe.yaml:14` or `command line`."""


def load(
    cls: type[T],
    recipe: Path | None = None,
    words: Sequence[str] = (),
    *,
    text: str | None = None,
    renamed: Mapping[str, str] | None = None,
) -> Loaded[T]:
    """Read a recipe, let each word override it, and check the whole against `cls`.

    `renamed` says of keys that other systems use what they are called here. Raises RecipeError, a line a mistake.
    """
    from pydantic import ValidationError

    names = choices(cls)
    layers = list(recipes(recipe, names)) if recipe else []
    layers += [from_tree(read_yaml(text, "recipe"), "recipe", names)] if text is not None else []
    said = reduce(lambda below, above: lay(below, above, names), [*layers, spoken(words, names)])
    try:
        value = door(cls).validate_python(said.tree)
    except ValidationError as error:
        missing = str(recipe) if recipe else WORDS if text is None else "recipe"
        places = said.places | {key: came for key, (_, came) in said.settings.items()}
        mistakes = error.errors(include_url=False)
        raise RecipeError("\n".join(explain(cls, mistakes, places, missing, renamed or {}))) from None
    return Loaded(value, {setting(key): origin(said.settings, key) for key in leaves(dump(value))})


def origin(settings: Mapping[Key, Setting], key: Key) -> str:
    """Where a value came from: of a list, where the first thing in it was said."""
    inside = (said for path, said in settings.items() if path[: len(key)] == key)
    return next(inside, Setting(None, "default")).origin


def setting(path: Key) -> str:
    """The name of a setting: that of a choice is the choice's own."""
    return ".".join(path[:-1] if len(path) > 1 and path[-1] == "name" else path)


def leaves(tree: dict[str, Any]) -> Iterator[Key]:
    """The path of every value of a tree."""
    return (path for path, _ in values(tree))


@cache
def door(cls: type):
    """What checks a tree against a record: pydantic, with numbers, texts and flags taken as they are, never turned
    into each other."""
    from pydantic import TypeAdapter
    from pydantic_core import SchemaValidator

    return SchemaValidator(exact(TypeAdapter(cls).core_schema))


def exact(schema: Any) -> Any:
    if isinstance(schema, list | tuple):
        return type(schema)(exact(part) for part in schema)
    if not isinstance(schema, dict):
        return schema
    kept = {key: exact(part) for key, part in schema.items()}
    if schema.get("type") in ("int", "float", "bool", "str"):
        kept["strict"] = True
    if schema.get("type") == "float":
        kept["allow_inf_nan"] = False
    return kept


def dump(value: Any) -> Any:
    """The tree that `load` reads back as `value`."""
    if isinstance(value, tuple):
        return [dump(item) for item in value]
    if not is_dataclass(value) or isinstance(value, type):
        return value
    name = getattr(value, "name", None)
    chosen = {"name": name} if name else {}
    return chosen | {field.name: dump(getattr(value, field.name)) for field in fields(value)}


def to_yaml(value: Any, origins: Mapping[str, str]) -> str:
    """A record as YAML that loads back to it; what is not a default has its origin behind it."""
    from io import StringIO

    from ruamel.yaml import YAML

    yaml, out = YAML(), StringIO()
    yaml.width = 2**16
    yaml.dump(commented(dump(value), origins, ""), out)
    return out.getvalue()


def commented(tree: dict[str, Any], origins: Mapping[str, str], above: str):
    from ruamel.yaml.comments import CommentedMap

    made = CommentedMap()
    for key, value in tree.items():
        path = f"{above}.{key}".lstrip(".")
        if isinstance(value, dict):
            made[key] = commented(value, origins, path)
            continue
        made[key] = quoted(value)
        came = origins.get(path.removesuffix(".name"), "default")
        if came != "default":
            made.yaml_add_eol_comment(came, key, column=0)
    return made


def quoted(value: Any) -> Any:
    """A value, in quotes where it must be: text with what cannot be seen in it, such as a line break, or that readers
    of YAML 1.1 would take for a flag. A list, and what is in it, stands on one line."""
    from ruamel.yaml.comments import CommentedMap, CommentedSeq
    from ruamel.yaml.scalarstring import DoubleQuotedScalarString

    if isinstance(value, list | dict):
        row = isinstance(value, list)
        made: Any = CommentedSeq(map(quoted, value)) if row else CommentedMap({k: quoted(v) for k, v in value.items()})
        made.fa.set_flow_style()
        return made
    if not isinstance(value, str):
        return value
    flag = value.lower() in ("y", "n", "yes", "no", "on", "off")
    must = flag or not value.isprintable() or value.startswith("?")  # ruamel writes a list's `?a` as a key
    return DoubleQuotedScalarString(value) if must else value
