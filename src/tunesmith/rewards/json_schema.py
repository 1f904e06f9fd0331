"""Whether the answer is JSON, of the right form."""

from __future__ import annotations

import json
import re
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import BadEnvironment, RecipeError
from .base import Reward, reward

FENCED = re.compile(r"\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*", re.DOTALL)


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
            refuse_references(self.schema)
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

    def code(self):
        return [Path(self.file)] if self.file else []

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
        return kind(schema, registry=Registry())  # an empty one: nothing is looked up on the network

    def one(self, said):
        found = FENCED.fullmatch(said.completion) if self.fenced else None
        try:
            value = json.loads(found[1] if found else said.completion, parse_constant=no_number)
        except (ValueError, RecursionError):
            return 0.0
        return float(self.schema is None or self.schema.is_valid(value))


def refuse_references(checker: Any) -> None:
    """Raise Unresolvable for a reference to what is not there, wherever in a schema it stands, and RecursionError for
    one that comes back to itself at the same value."""
    from jsonschema_specifications import REGISTRY
    from referencing.jsonschema import DRAFT202012, specification_with

    kind = specification_with(checker.META_SCHEMA["$schema"], default=DRAFT202012)
    left: list[tuple[Any, Any]] = [(checker.schema, REGISTRY.resolver_with_root(kind.create_resource(checker.schema)))]
    seen = set[int]()
    while left:
        part, resolver = left.pop()
        if not isinstance(part, dict) or id(part) in seen:
            continue
        seen.add(id(part))
        for key in ("$ref", "$dynamicRef"):
            if isinstance(part.get(key), str):
                found = resolver.lookup(part[key])
                left.append((found.contents, found.resolver))
        parts = map(kind.create_resource, kind.subresources_of(part))
        left += [(one.contents, resolver.in_subresource(one)) for one in parts]
    for value in (None, True, 0, "", [], {}):
        checker.is_valid(value)


def no_number(word: str) -> None:
    raise ValueError(f"{word} is not JSON")
