"""What may be sent, as an OpenAPI document: for other programs, and for tests that send whatever it allows."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from typing import Any

from ..config.describe import field_docs
from ..runs import NAME
from .wire import Chat, Completion, Embedding, Load, Said, Score, Unload

ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
REFUSALS = ("400", "401", "403", "404", "413", "429", "500", "501", "503", "504", "507")


POSTS = {
    "/v1/chat/completions": Chat,
    "/v1/completions": Completion,
    "/v1/embeddings": Embedding,
    "/v1/score": Score,
    "/v1/feedback": Said,
    "/v1/load_lora_adapter": Load,
    "/v1/unload_lora_adapter": Unload,
}
GETS = ("/health", "/metrics", "/v1/models", "/v1/models/{id}")
NAMES = {"lora_name", "lora_path"}
"""What must be a name."""


@cache
def document() -> dict[str, Any]:
    """The whole of it."""
    parts: dict[str, Any] = {}
    paths: dict[str, Any] = {path: {"post": posted(cls, parts)} for path, cls in POSTS.items()}
    for path in GETS:
        name = {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        paths[path] = {"get": {"parameters": [name] if "{" in path else [], "responses": responses()}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Tunesmith", "version": version("tunesmith")},
        "paths": paths,
        "components": {"schemas": parts, "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "security": [{"key": []}, {}],
    }


def posted(cls: type, parts: dict[str, Any]) -> dict[str, Any]:
    """What takes a body; what its schema refers to is put among `parts`."""
    from pydantic import TypeAdapter

    schema = TypeAdapter(cls).json_schema(ref_template="#/components/schemas/{model}")
    parts.update(schema.pop("$defs", {}))
    for name, words in field_docs(cls).items():
        if name in schema["properties"]:
            schema["properties"][name]["description"] = words
    for name in NAMES & schema["properties"].keys():
        schema["properties"][name]["pattern"] = f"^{NAME}$"
    body = {"required": True, "content": {"application/json": {"schema": schema}}}
    return {"requestBody": body, "responses": responses()}


def responses() -> dict[str, Any]:
    refused = {"description": "Refused.", "content": {"application/json": {"schema": ERROR}}}
    return {"200": {"description": "Answered."}, **dict.fromkeys(REFUSALS, refused)}
