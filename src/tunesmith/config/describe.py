"""A record as a form: the rows that help, the schema, the web page and the docs all show."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from pathlib import Path
from sys import modules
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from .choice import Choice


class Row(NamedTuple):
    """One setting."""

    path: str
    type: Any
    default: Any
    doc: str
    when: str
    """The choice that brings this row, such as `objective=dpo`; empty if it is always there."""


def rows(cls: Any) -> Iterator[Row]:
    """Every setting of a record and of the records in it, in the order in which they are written.

    What several entries of a registry offer to choose from is described once.
    """
    known = set()
    for row in within(cls, "", ""):
        if (row.path, row.when) not in known:
            yield row
        known.add((row.path, row.when))


def within(cls: Any, path: str, when: str) -> Iterator[Row]:
    hints, docs = get_type_hints(cls, include_extras=True), field_docs(cls)
    for field in fields(cls):
        hint = hints[field.name]
        at, choice, doc = f"{path}.{field.name}".lstrip("."), Choice.of(hint), docs.get(field.name, "")
        if choice:
            yield Row(at, hint, choice.default, doc, when)
        elif choice := Choice.of(member(hint)):
            yield Row(at, hint, usual(field), doc, when)
            at = f"{at}.{NUMBER}"
        if choice:
            for name, entry in choice.registry.all().items():
                yield from within(entry, at, f"{at}={name}")
        elif is_dataclass(hint):
            yield from within(hint, at, when)
        else:
            yield Row(at, hint, usual(field), doc, when)


NUMBER = "N"
"""What stands in a row's path for the number of something in a list."""


def member(hint: Any) -> Any:
    """What a list holds, of its type; None for any other type."""
    return get_args(hint)[0] if get_origin(hint) in (tuple, list) else None


def usual(field: Field[Any]) -> Any:
    """What a field is if nothing is said."""
    if field.default_factory is not MISSING:
        return field.default_factory()
    return "needed" if field.default is MISSING else field.default


def field_docs(cls: Any) -> dict[str, str]:
    """The string under each field, of the class and those it inherits from."""
    found: dict[str, str] = {}
    for kind in reversed(cls.__mro__[:-1]):
        for node in source(kind.__module__).body:
            if isinstance(node, ast.ClassDef) and node.name == kind.__name__:
                found |= dict(docs_in(node))
    return found


def docs_in(body: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for node, doc in zip(body.body, body.body[1:], strict=False):
        match node, doc:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                yield name, text


@cache
def source(module: str) -> ast.Module:
    file = getattr(modules[module], "__file__", None)
    return ast.parse(Path(file).read_text(encoding="utf-8")) if file else ast.Module([], [])


NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text", NoneType: "null"}


def words(hint: Any) -> str:
    """A type in words, such as `a whole number of at least 1, or null`."""
    if choice := Choice.of(hint):
        return f"one of {', '.join(choice.registry.all())}"
    origin, args = get_origin(hint), list(get_args(hint))
    if origin is Annotated:
        return words(args[0]) + bounds(args[1:])
    if origin is Literal:
        return f"one of {', '.join(map(str, args))}" if len(args) > 1 else repr(args[0])
    if origin in (UnionType, Union):
        return ", or ".join(words(part) for part in args)
    if origin in (tuple, list):
        return f"a list, each {words(args[0])}"
    return NAMES.get(hint, "keys with values" if is_dataclass(hint) else str(hint))


BOUNDS = {"gt": "greater than", "ge": "at least", "lt": "less than", "le": "at most"}


def bounds(marks: Sequence[Any]) -> str:
    """What limits a number, such as ` of at least 0 and at most 1`."""
    said = [f"{word} {getattr(mark, name):g}" for mark in marks for name, word in BOUNDS.items() if hasattr(mark, name)]
    of = " of " if said and said[0].startswith("at") else " "
    return of + " and ".join(said) if said else ""


def json_schema(cls: type) -> dict[str, Any]:
    """The JSON Schema of a record, with the string under each field as its description."""
    from pydantic import TypeAdapter
    from pydantic.json_schema import GenerateJsonSchema

    class Documented(GenerateJsonSchema):
        def dataclass_schema(self, schema):  # pydantic's own reading of these strings leaves out inherited fields
            made = super().dataclass_schema(schema)
            docs = field_docs(schema["cls"])
            for name, described in made.get("properties", {}).items():
                described |= {"description": docs[name]} if name in docs else {}
            return made

    made = TypeAdapter(cls).json_schema(schema_generator=Documented)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | made
