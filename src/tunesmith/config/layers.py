"""What is said in recipes and on the command line, as layers of settings: the later said lies over the earlier."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import RecipeError
from .choice import Choice
from .describe import NUMBER, member, rows
from .yaml import MOST_BYTES, TOO_LARGE, Tree, read_word, read_yaml

WORDS = "command line"
Key = tuple[str, ...]


class Setting(NamedTuple):
    """A value, and where it was said."""

    value: Any
    origin: str


@dataclass(frozen=True)
class Layer:
    """Settings by the path of their key, and where the keys of recipes stand, those that hold other keys too."""

    settings: dict[Key, Setting] = field(default_factory=dict)
    places: dict[Key, str] = field(default_factory=dict)

    @property
    def tree(self) -> dict[str, Any]:
        """The settings as keys in keys."""
        root: dict[str, Any] = {}
        for key, (value, _) in self.settings.items():
            room = root
            for step in key[:-1]:
                room = room.setdefault(step, {})
            room[key[-1]] = value
        return listed(root)


def listed(tree: Any) -> Any:
    """Keys in keys, with a list where the keys are 0, 1 and so on."""
    if not isinstance(tree, dict):
        return tree
    made = {key: listed(value) for key, value in tree.items()}
    return [made[str(n)] for n in range(len(made))] if made and made.keys() == set(map(str, range(len(made)))) else made


@cache
def choices(cls: Any) -> Mapping[Key, str]:
    """The keys that choose an entry of a registry, with the name that each has if nothing is said."""
    found = {tuple(row.path.split(".")): row.default for row in rows(cls) if Choice.of(row.type)}
    lists = [row.path for row in rows(cls) if Choice.of(member(row.type))]
    return found | {(*path.split("."), NUMBER): "" for path in lists}


def layer(tree: dict[str, Any], places: dict[Key, str], names: Mapping[Key, str]) -> Layer:
    """A tree as a layer; `lora` where a choice stands is the same as `{name: lora}`."""
    settings = {}
    for key, value in values(tree):
        place = tuple(NUMBER if step.isdigit() else step for step in key)
        named = (*key, "name") if place in names and isinstance(value, str) else key
        settings[named] = Setting(value, places[key])
    return Layer(settings, places)


def lay(below: Layer, above: Layer, names: Mapping[Key, str], default: bool = True) -> Layer:
    """`above` laid over `below`. A choice whose name changes loses the options of the old one.

    Without `default`, a name counts as changed only if `below` gives one: options said on the command line before the
    name are meant for it.
    """
    settings = dict(below.settings)
    for choice, usual in names.items():
        name = (*choice, "name")
        was = settings.get(name, Setting(usual, "") if default else above.settings.get(name))
        if name in above.settings and was and above.settings[name].value != was.value:
            settings = {key: kept for key, kept in settings.items() if key[: len(choice)] != choice}
    for key, said in above.settings.items():
        if above_list := next((key[:n] for n in range(1, len(key)) if isinstance(at(settings, key[:n]), list)), None):
            changed = put(settings[above_list].value, key[len(above_list) :], said.value, ".".join(key))
            settings[above_list] = Setting(changed, said.origin)
            continue
        inside = [other for other in settings if other[: len(key)] == key and other != key]
        if said.value == {} and inside:
            continue
        for other in [*inside, *(key[:length] for length in range(1, len(key)))]:
            settings.pop(other, None)
        settings[key] = said
    return Layer(settings, below.places | above.places)


def at(settings: Mapping[Key, Setting], key: Key) -> Any:
    return settings[key].value if key in settings else None


def put(room: Any, key: Key, value: Any, said: str) -> Any:
    """A copy of a list, or of keys in one, with a value at its place; a choice whose name changes loses its options."""
    step, inner = key[0], key[1:]
    if isinstance(room, list):
        if not step.isdigit() or int(step) > len(room):
            raise RecipeError(f"{WORDS}: {said}: the list has {len(room)}; name one by its number from 0, or the next")
        number = int(step)
        there = room[number] if number < len(room) else {}
        return [*room[:number], put(there, inner, value, said) if inner else value, *room[number + 1 :]]
    keys = {"name": room} if isinstance(room, str) else room or {}
    if key == ("name",) and keys.get("name", value) != value:
        return {"name": value}
    return keys | {step: put(keys.get(step), inner, value, said) if inner else value}


def recipes(path: Path, names: Mapping[Key, str], above: tuple[Path, ...] = (), asked: str = "") -> Iterator[Layer]:
    """A recipe and before it those that it is based on, each with the name that it was given."""
    path = Path(path)
    if path.resolve() in above:
        raise RecipeError(f"{asked}{path}: is based on itself, through {' and '.join(map(str, above))}")
    tree, advised = read_recipe(path, asked)
    if "base" in tree.value:
        base, where = tree.value.pop("base"), f"{path}:{tree.lines['base',]}: base: "
        if not isinstance(base, str) or not base or "\0" in base:
            raise RecipeError(f"{where}must be the path of another recipe (got {base!r:.60})")
        yield from recipes(path.parent / base, names, (*above, path.resolve()), where)
    yield from_tree(tree, str(path), names, advised)


ADVISED = re.compile(r"\s#\s*advisor\b[^#]*$")
"""How a line ends that `tunesmith advise --apply` wrote."""


def read_recipe(path: Path, asked: str) -> tuple[Tree, set[int]]:
    """What a recipe says, and which of its lines the advisor wrote."""
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise RecipeError(f"{asked}{path}: the recipe cannot be read: {error.strerror}") from None
    if len(raw) > MOST_BYTES:
        raise RecipeError(f"{asked}{path}: {TOO_LARGE}")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise RecipeError(f"{asked}{path}: the recipe is not UTF-8 text") from None
    return read_yaml(text, str(path)), {at for at, line in enumerate(text.split("\n"), 1) if ADVISED.search(line)}


def from_tree(tree: Tree, name: str, names: Mapping[Key, str], advised: Container[int] = ()) -> Layer:
    def place(line: int) -> str:
        return f"advisor, {name}:{line}" if line in advised else f"{name}:{line}"

    return layer(tree.value, {key: place(line) for key, line in tree.lines.items()}, names)


def spoken(words: Sequence[str], names: Mapping[Key, str]) -> Layer:
    """Words `a.b=v`, `--a.b v` and `--a.b=v` as one layer; a later word wins."""
    said = Layer()
    rest = list(words)
    while rest:
        word = rest.pop(0)
        key, given, value = word.removeprefix("--").partition("=")
        path = tuple(key.replace("-", "_").split("."))
        if "" in path or (not given and not word.startswith("--")):
            raise RecipeError(f"{WORDS}: '{word}' is not understood; settings are given as key=value")
        if not given:
            if not rest or rest[0].startswith("--"):
                raise RecipeError(f"{WORDS}: {word}: needs a value, such as {word}=...")
            value = rest.pop(0)
        tree = read_word(value, f"{WORDS}: {key}")
        for step in reversed(path):
            tree = {step: tree}
        said = lay(said, layer(tree, {key: WORDS for key, _ in values(tree)}, names), names, default=False)
    return said


def values(tree: dict[str, Any], above: Key = ()) -> Iterator[tuple[Key, Any]]:
    """The path of every value of a tree that holds no others, and the value."""
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from values(value, (*above, key))
        else:
            yield (*above, key), value
