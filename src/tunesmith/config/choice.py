"""A field that names an entry of a registry and sets that entry's options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

from .registry import Registry


@dataclass(frozen=True)
class Choice:
    """Marks a type, as in `Annotated[Method, Choice(method, "lora")]`.

    Reads `lora`, or `{name: lora, r: 16}`, or `{r: 16}` for the default name, unless that is empty. A list of
    choices is a `tuple[Annotated[...], ...]`.
    """

    registry: Registry[Any]
    default: str

    @staticmethod
    def of(hint: Any) -> Choice | None:
        """The choice that a type is marked with, if it is one."""
        return next((mark for mark in get_args(hint)[1:] if isinstance(mark, Choice)), None)

    def __get_pydantic_core_schema__(self, source, handler):
        from pydantic_core import core_schema as cs

        def named(tree):
            return {"name": tree} if isinstance(tree, str) else tree

        def tag(tree):
            return str(tree.get("name", self.default)) if isinstance(tree, dict) else getattr(tree, "name", "")

        def options(tree):
            return {key: value for key, value in tree.items() if key != "name"} if isinstance(tree, dict) else tree

        entries: dict[Any, cs.CoreSchema] = {
            name: cs.no_info_before_validator_function(options, handler.generate_schema(cls))
            for name, cls in self.registry.all().items()
        }
        return cs.no_info_before_validator_function(named, cs.tagged_union_schema(entries, discriminator=tag))

    def __get_pydantic_json_schema__(self, schema, handler):
        names = self.registry.all()
        objects = []
        for name, entry in schema["schema"]["choices"].items():
            options = handler.resolve_ref_schema(handler(entry))
            properties = {"name": {"const": name}} | options.get("properties", {})
            required = [] if name == self.default else ["name"]
            objects.append(options | {"properties": properties, "required": [*required, *options.get("required", [])]})
        usual = {"default": self.default} if self.default else {}
        return {"anyOf": [{"enum": list(names)}, *objects]} | usual
