"""A mistake in a recipe as a sentence: where it stands, what was expected, the nearest thing that would be right."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

from .choice import Choice
from .describe import BOUNDS, NUMBER, member, rows, words
from .registry import did_you_mean

Key = tuple[str, ...]
Places = Mapping[Key, str]
KINDS = {"greater_than": "gt", "greater_than_equal": "ge", "less_than": "lt", "less_than_equal": "le"}


def explain(cls: type, mistakes: Sequence[Any], places: Places, name: str, renamed: Mapping[str, str]) -> Iterator[str]:
    """A line for each key with a mistake, in the order of the record."""
    seen = set()
    for mistake in mistakes:
        path, tree, hint = resolve(cls, mistake)
        if path in seen:
            continue
        seen.add(path)
        where = place(tree, places, name)
        yield f"{where}: {'.'.join(path)}: {what(cls, mistake, (path, tree), hint, renamed)}"


def resolve(cls: type, mistake: Any) -> tuple[Key, Key, Any]:
    """The path of a mistake with the names of choices in it, the same as in the recipe, and the type that stands there.

    What pydantic adds behind a key, such as which part of a union it tried, is left off.
    """
    path, tree, here = [], [], cls
    steps = iter(map(str, mistake["loc"]))
    for step in steps:
        if not is_dataclass(here) and member(here) is None:
            break
        path.append(step)
        tree.append(step)
        here = within(here, step)
        if choice := Choice.of(here):
            name = next(steps, None)
            if name is None:
                break
            path.append(name)
            here = choice.registry[name]
    return tuple(path), tuple(tree), here


def within(cls: Any, step: str) -> Any:
    """The type of a field, or of what a list holds."""
    return get_type_hints(cls, include_extras=True).get(step) if is_dataclass(cls) else member(cls)


def place(tree: Key, places: Places, name: str) -> str:
    """Where the name of a choice stands, or the key, or something in it, or else the nearest key above it."""
    inside = [key for key in places if key[: len(tree)] == tree]
    above = [tree[:length] for length in range(len(tree) - 1, 0, -1)]
    near = [(*tree, "name"), tree, *inside, *above]
    return next((places[key] for key in near if key in places), name)


def what(cls: type, mistake: Any, key: tuple[Key, Key], hint: Any, renamed: Mapping[str, str]) -> str:
    kind, got = mistake["type"], in_yaml(mistake["input"])
    if kind == "unexpected_keyword_argument":
        return unknown(cls, *key, renamed)
    if kind in ("missing", "missing_argument"):
        return "needed, but not given"
    if kind == "union_tag_invalid":
        return no_such(Choice.of(hint), mistake, ".".join(key[1]), renamed)
    if bound := KINDS.get(kind):
        return f"must be {BOUNDS[bound]} {mistake['ctx'][bound]:g} (got {got})"
    if kind == "literal_error":
        options = [option for option in mistake["ctx"]["expected"].replace("' or '", "', '").strip("'").split("', '")]
        near = did_you_mean(mistake["input"], options)
        return f"must be {words(hint)} (got {got})" + (f"; {near}" if near.startswith("did") else "")
    return f"must be {words(hint)} (got {got})"


def no_such(choice: Choice | None, mistake: Any, path: str, renamed: Mapping[str, str]) -> str:
    """What is wrong where an entry of a registry is to be chosen."""
    tag = mistake["ctx"]["tag"]
    if choice and not tag and isinstance(mistake["input"], dict):
        return f"needs a name; known: {', '.join(choice.registry.all())}"
    if not tag or choice is None:
        return f"must be a name, or keys with values (got {in_yaml(mistake['input'])})"
    if asked := renamed.get(f"{path}={tag}"):
        return f"{tag} {asked}"
    return f"no such {choice.registry.kind} '{tag}'; {did_you_mean(tag, choice.registry.all())}"


def in_yaml(value: Any) -> str:
    """A value about as it was written, not as Python shows it."""
    return {"True": "true", "False": "false", "None": "null"}.get(repr(value), f"{value!r:.60}")


def unknown(cls: type, path: Key, tree: Key, renamed: Mapping[str, str]) -> str:
    """What to do about a key that there is not: its name here, its room, or the nearest word."""
    key, asked, above = path[-1], ".".join(map(numbered, tree)), ".".join(map(numbered, tree[:-1]))
    there = list(rows(cls))
    if key in [row.when.partition("=")[2] for row in there if row.when.startswith(f"{above}=")]:
        return f"is no key; the options of {above}={key} stand under {above} itself"
    for name in (".".join(path), asked):
        if name in renamed:
            return renamed[name]
    if others := [row.when for row in there if row.path == asked]:
        return f"is an option of {' and of '.join(others)}"
    if key in renamed:
        return renamed[key]
    homes = sorted({row.path for row in there if row.path.endswith(f".{key}") and f".{NUMBER}." not in row.path})
    if 0 < len(homes) <= 2:
        rooms = " or ".join(home.rpartition(".")[0] for home in homes)
        return f"belongs under {rooms}: {' or '.join(homes)}"
    return f"no such key; {did_you_mean(key, keys(cls, path[:-1]))}"


def numbered(step: str) -> str:
    return NUMBER if step.isdigit() else step


def keys(cls: Any, path: Key) -> Iterator[str]:
    """The keys that may stand at a path."""
    steps = iter(path)
    for step in steps:
        cls = within(cls, step)
        if choice := Choice.of(cls):
            cls = choice.registry[next(steps)]
    yield from (field.name for field in fields(cls))
