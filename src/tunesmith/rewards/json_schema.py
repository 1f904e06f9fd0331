"""Whether the answer is JSON, of the right form."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from time import monotonic
from typing import Any

from ..errors import BadEnvironment, RecipeError
from .base import Reward, Unscored, reward

LONGEST = 1.0
"""Seconds that a schema's patterns may take for an answer, all together: some take for ever on some texts."""


@reward("json_schema")
class JsonSchema(Reward):
    """1 if the answer is JSON that a schema allows, else 0."""

    file: str | None = None
    """A JSON Schema; without one, any JSON will do. Needs the extra jsonschema. What it refers to elsewhere is not
    fetched."""
    fenced: bool = False
    """Whether JSON in a block of code between ``` is taken too, with nothing around it."""

    def refuse(self, key):
        if self.file is None:
            return
        if find_spec("jsonschema") is None:
            raise BadEnvironment(f"{key}: json_schema needs jsonschema; pip install 'tunesmith[jsonschema]'")
        from jsonschema import SchemaError
        from referencing.exceptions import Unresolvable

        where = f"{key}.file: {self.file}"
        try:
            self.clock.begin()
            keys = walked(self.schema)
        except OSError as error:
            raise RecipeError(f"{where}: cannot be read: {error.strerror}") from None
        except (ValueError, SchemaError) as error:
            said = str(error).split("\n")[0]
            raise RecipeError(f"{where}: is no JSON Schema: {said}; mend it") from None
        except Unresolvable as error:
            raise RecipeError(
                f"{where}: refers to {error.ref}, which is not in it, and nothing is fetched; put it under $defs"
            ) from None
        except RecursionError:
            raise RecipeError(f"{where}: refers to itself without end; mend it") from None
        if {"patternProperties", "unevaluatedProperties"} <= keys:
            raise RecipeError(
                f"{where}: with unevaluatedProperties, patterns of patternProperties may take for ever on an answer;"
                " take additionalProperties instead, or leave one of them out"
            )

    def code(self):
        return [Path(self.file)] if self.file else []

    @cached_property
    def clock(self) -> Clock:
        return Clock()

    @cached_property
    def schema(self) -> Any:
        """What checks a value; None if any will do."""
        if self.file is None:
            return None
        from jsonschema.validators import validator_for
        from referencing import Registry

        schema = json.loads(Path(self.file).read_text(encoding="utf-8"))
        kind = validator_for(schema)
        kind.check_schema(schema)
        if isinstance(schema, dict):
            schema.pop("$schema", None)  # by it a reference to the whole would be checked by the class without a clock
        return self.clock.over(kind)(schema, registry=Registry())  # an empty one: nothing is fetched

    def one(self, said):
        try:
            text = unfenced(said.completion) if self.fenced else said.completion
            value = json.loads(text, parse_constant=no_number)
        except (ValueError, RecursionError):
            return 0.0
        self.clock.begin()
        try:
            return float(self.schema is None or self.schema.is_valid(value))
        except TimeoutError:
            raise Unscored(f"a pattern of {self.file} took longer than {LONGEST:g} s on an answer") from None


def unfenced(text: str) -> str:
    """What stands in a block of code between ```, if the text is one and nothing else; else the text."""
    inner = text.strip()
    if len(inner) < 6 or not (inner.startswith("```") and inner.endswith("```")):
        return text
    head, _, body = inner[3:-3].partition("\n")
    return body if head.strip() in ("", "json") else text


class Clock:
    """Looks for a schema's patterns in what an answer says, until its time is over."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        self.end = monotonic() + LONGEST

    def found(self, pattern: str, text: str) -> bool:
        import regex

        left = self.end - monotonic()
        if left <= 0:
            raise TimeoutError
        return regex.search(pattern, text, timeout=left) is not None

    def pattern(self, validator: Any, wanted: str, value: Any, schema: Any) -> Iterator[Any]:
        from jsonschema import ValidationError

        if validator.is_type(value, "string") and not self.found(wanted, value):
            yield ValidationError(f"{value!r} does not match {wanted!r}")

    def pattern_properties(self, validator: Any, wanted: dict[str, Any], value: Any, schema: Any) -> Iterator[Any]:
        for name in value if validator.is_type(value, "object") else ():
            for one in wanted:
                if self.found(one, name):
                    yield from validator.descend(value[name], wanted[one], path=name, schema_path=one)

    def additional_properties(self, validator: Any, wanted: Any, value: Any, schema: Any) -> Iterator[Any]:
        known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
        for name in value if validator.is_type(value, "object") else ():
            if name not in known and not any(self.found(one, name) for one in patterns):
                yield from validator.descend(value[name], wanted, path=name)

    def over(self, kind: Any) -> Any:
        """A class of validators with the patterns looked for here; otherwise the same."""
        from jsonschema.validators import extend

        checks = {"patternProperties": self.pattern_properties, "additionalProperties": self.additional_properties}
        return extend(kind, {"pattern": self.pattern} | checks)


def walked(checker: Any) -> set[str]:
    """The keys that occur in a schema. Raises Unresolvable for a reference to what is not there, wherever it stands,
    and RecursionError for one that comes back to itself at the same value."""
    from jsonschema_specifications import REGISTRY
    from referencing.jsonschema import DRAFT202012, specification_with

    kind = specification_with(checker.META_SCHEMA["$schema"], default=DRAFT202012)
    left: list[tuple[Any, Any]] = [(checker.schema, REGISTRY.resolver_with_root(kind.create_resource(checker.schema)))]
    seen, keys = set[int](), set[str]()
    while left:
        part, resolver = left.pop()
        if not isinstance(part, dict) or id(part) in seen:
            continue
        seen.add(id(part))
        keys |= part.keys()
        for key in ("$ref", "$dynamicRef"):
            if isinstance(part.get(key), str):
                found = resolver.lookup(part[key])
                left.append((found.contents, found.resolver))
        parts = map(kind.create_resource, kind.subresources_of(part))
        left += [(one.contents, resolver.in_subresource(one)) for one in parts]
    for value in (None, True, 0, "", [], {}):
        checker.is_valid(value)
    return keys


def no_number(word: str) -> None:
    raise ValueError(f"{word} is not JSON")
