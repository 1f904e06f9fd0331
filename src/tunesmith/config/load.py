"""From a recipe and `key=value` words to a record, or to every mistake in them at once; and back to YAML."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar, get_type_hints

from ..errors import RecipeError
from .choice import Choice
from .explain import explain
from .yaml import Tree, read_word, read_yaml

T = TypeVar("T")
WORDS = "command line"


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

    layers = list(recipes(recipe)) if recipe else []
    layers += [("recipe", read_yaml(text, "recipe"))] if text is not None else []
    tree, places = {}, {}
    for name, layer in layers:
        spots = {path: f"{name}:{line}" for path, line in layer.lines.items()}
        tree, places = merge(cls, tree, layer.value, places, spots)
    said = spoken(words)
    tree, places = merge(cls, tree, said, places, dict.fromkeys(leaves(said), WORDS))
    try:
        value = door(cls).validate_python(tree)
    except ValidationError as error:
        last = layers[-1][0] if layers else WORDS
        mistakes = error.errors(include_url=False)
        raise RecipeError("\n".join(explain(cls, mistakes, places, last, renamed or {}))) from None
    return Loaded(value, {setting(path): places.get(path, "default") for path in leaves(dump(value))})


def setting(path: tuple[str, ...]) -> str:
    """The name of a setting: that of a choice is the choice's own."""
    return ".".join(path[:-1] if len(path) > 1 and path[-1] == "name" else path)


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


def recipes(path: Path, above: tuple[Path, ...] = ()) -> Iterator[tuple[str, Tree]]:
    """A recipe and before it those that it is based on, each with the name that it was given."""
    path = Path(path)
    if path.resolve() in above:
        raise RecipeError(f"{path}: is based on itself, through {' and '.join(map(str, above))}")
    try:
        tree = read_yaml(path.read_text(encoding="utf-8-sig"), str(path))
    except OSError as error:
        raise RecipeError(f"{path}: the recipe cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise RecipeError(f"{path}: the recipe is not UTF-8 text") from None
    if "base" in tree.value:
        base = tree.value.pop("base")
        if not isinstance(base, str):
            raise RecipeError(f"{path}:{tree.lines['base',]}: base: must be the path of another recipe (got {base!r})")
        yield from recipes(path.parent / base, (*above, path.resolve()))
    yield str(path), tree


def spoken(words: Sequence[str]) -> dict[str, Any]:
    """Words `a.b=v`, `--a.b v` and `--a.b=v` as a tree; a later word wins."""
    tree: dict[str, Any] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        key, given, value = word.removeprefix("--").partition("=")
        if word.startswith("--") and not given:
            if not rest or rest[0].startswith("--"):
                raise RecipeError(f"{WORDS}: {word}: needs a value, such as {word}=...")
            value = rest.pop(0)
        elif not given:
            raise RecipeError(f"{WORDS}: '{word}' is not understood; settings are given as key=value")
        put(tree, key.replace("-", "_").split("."), read_word(value, f"{WORDS}: {key}"))
    return tree


def put(tree: dict[str, Any], path: list[str], value: Any) -> None:
    *parents, last = path
    for key in parents:
        if not isinstance(tree.get(key), dict):
            tree[key] = {"name": tree[key]} if key in tree else {}
        tree = tree[key]
    if isinstance(tree.get(last), dict) and isinstance(value, str):
        tree[last]["name"] = value
    else:
        tree[last] = value


Places = dict[tuple[str, ...], str]


def merge(cls: Any, old: dict[str, Any], new: dict[str, Any], places: Places, spots: Places) -> tuple[dict, Places]:
    """The tree `old` with `new` laid over it; and where each key of the result stands.

    A choice that is made anew loses the options of the old one.
    """
    hints = get_type_hints(cls, include_extras=True) if is_dataclass(cls) else {}
    merged, kept = dict(old), places | {path: spot for path, spot in spots.items() if not path}
    for key, value in new.items():
        hint, before = hints.get(key), merged.get(key)
        choice = Choice.of(hint)
        below = {path[1:]: spot for path, spot in spots.items() if path[:1] == (key,)}
        over = {path[1:]: spot for path, spot in kept.items() if path[:1] == (key,)}
        if choice:
            if isinstance(value, str):
                value, below = {"name": value}, {("name",): below[()]}
            if isinstance(value, dict) and value.get("name", was := name_of(before, choice)) != was:
                before = None
        if isinstance(before, dict) and isinstance(value, dict):
            value, below = merge(hint, before, value, over, below)
        merged[key] = value
        kept = {path: spot for path, spot in kept.items() if path[:1] != (key,)}
        kept |= {(key, *path): spot for path, spot in below.items()}
    return merged, kept


def name_of(value: Any, choice: Choice) -> str:
    return value.get("name", choice.default) if isinstance(value, dict) else choice.default


def leaves(tree: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every value of a tree."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, (*above, key))
        else:
            yield (*above, key)


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
    from ruamel.yaml.comments import CommentedMap, CommentedSeq
    from ruamel.yaml.scalarstring import DoubleQuotedScalarString

    made = CommentedMap()
    for key, value in tree.items():
        path = f"{above}.{key}".lstrip(".")
        if isinstance(value, dict):
            made[key] = commented(value, origins, path)
            continue
        if isinstance(value, list):
            made[key] = CommentedSeq(value)
            made[key].fa.set_flow_style()
        else:
            made[key] = DoubleQuotedScalarString(value) if quoted(value) else value
        came = origins.get(path.removesuffix(".name"), "default")
        if came != "default":
            made.yaml_add_eol_comment(came, key, column=0)
    return made


def quoted(value: Any) -> bool:
    """Whether a text needs quotes: it has several lines, or readers of YAML 1.1 would take it for a flag."""
    return isinstance(value, str) and ("\n" in value or value.lower() in ("y", "n", "yes", "no", "on", "off"))
