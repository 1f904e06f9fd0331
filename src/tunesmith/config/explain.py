"""A mistake in a recipe as a sentence: where it stands, what was expected, the nearest thing that would be right."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

from .choice import Choice
from .describe import rows, words
from .registry import did_you_mean

Places = Mapping[tuple[str, ...], str]
BOUNDS = {"greater_than": "gt", "greater_than_equal": "ge", "less_than": "lt", "less_than_equal": "le"}
BOUND_WORDS = {"gt": "greater than", "ge": "at least", "lt": "less than", "le": "at most"}


def explain(cls: type, mistakes: Sequence[Any], places: Places, name: str, renamed: Mapping[str, str]) -> Iterator[str]:
    """A line for each key with a mistake, in the order of the record."""
    seen = set()
    for mistake in mistakes:
        path, tree, hint = resolve(cls, mistake)
        if path in seen:
            continue
        seen.add(path)
        where = place(tree, places, name)
        yield f"{where}: {'.'.join(path)}: {what(cls, mistake, path, hint, renamed)}"


def resolve(cls: type, mistake: Any) -> tuple[tuple[str, ...], tuple[str, ...], Any]:
    """The path of a mistake with the names of choices in it, the same as in the recipe, and the type that stands there.

    What pydantic adds behind a key, such as which part of a union it tried, is left off.
    """
    path, tree, here = [], [], cls
    steps = iter(map(str, mistake["loc"]))
    for step in steps:
        if not is_dataclass(here):
            break
        path.append(step)
        tree.append(step)
        here = get_type_hints(here, include_extras=True).get(step)
        if choice := Choice.of(here):
            name = next(steps, None)
            if name is None:
                break
            path.append(name)
            here = choice.registry[name]
    return tuple(path), tuple(tree), here


def place(tree: tuple[str, ...], places: Places, name: str) -> str:
    """Where a key stands, or the nearest key above it that does."""
    for length in range(len(tree), 0, -1):
        if found := places.get(tree[:length]) or places.get((*tree[:length], "name")):
            return found
    return name


def what(cls: type, mistake: Any, path: tuple[str, ...], hint: Any, renamed: Mapping[str, str]) -> str:
    kind, got = mistake["type"], mistake["input"]
    if kind == "unexpected_keyword_argument":
        return unknown(cls, path, renamed)
    if kind in ("missing", "missing_argument"):
        return "needed, but not given"
    if kind == "union_tag_invalid":
        choice = Choice.of(hint)
        tag = mistake["ctx"]["tag"]
        if not tag or choice is None:
            return f"must be a name, or keys with values (got {got!r:.60})"
        return f"no such {choice.registry.kind} '{tag}'; {did_you_mean(tag, choice.registry.all())}"
    if bound := BOUNDS.get(kind):
        return f"must be {BOUND_WORDS[bound]} {mistake['ctx'][bound]:g} (got {got!r})"
    if kind == "literal_error":
        options = [option for option in mistake["ctx"]["expected"].replace("' or '", "', '").strip("'").split("', '")]
        near = did_you_mean(got, options)
        return f"must be {words(hint)} (got {got!r})" + (f"; {near}" if near.startswith("did") else "")
    return f"must be {words(hint)} (got {got!r:.60})"


def unknown(cls: type, path: tuple[str, ...], renamed: Mapping[str, str]) -> str:
    """What to do about a key that there is not: its name here, its room, or the nearest word."""
    key = path[-1]
    if sentence := renamed.get(".".join(path)) or renamed.get(key):
        return sentence
    known = list(keys(cls, path[:-1]))
    near = did_you_mean(key, known)
    homes = sorted({row.path for row in rows(cls) if row.path.endswith(f".{key}")})
    if len(homes) == 1 and not near.startswith("did"):
        return f"belongs under {homes[0].rpartition('.')[0]}: {homes[0]}"
    return f"no such key; {near}"


def keys(cls: Any, path: tuple[str, ...]) -> Iterator[str]:
    """The keys that may stand at a path."""
    steps = iter(path)
    for step in steps:
        cls = get_type_hints(cls, include_extras=True)[step]
        if choice := Choice.of(cls):
            cls = choice.registry[next(steps)]
    yield from (field.name for field in fields(cls))
