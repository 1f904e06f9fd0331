"""YAML 1.2, read so that nothing in it can be mistaken: each value with its line, nothing twice, nothing executed."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..errors import RecipeError

MOST_BYTES, MOST_DEPTH, MOST_NODES = 2**20, 32, 20_000
PLAIN = {f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str", "map", "seq")}
Path = tuple[str, ...]


class Tree(NamedTuple):
    """What a document says, and on which line each key stands, counted from 1."""

    value: dict[str, Any]
    lines: dict[Path, int]


def read_yaml(text: str, name: str) -> Tree:
    """A document as a mapping. `name` is what errors call it. Raises RecipeError as `name:line: what`."""
    reader = Reader(name)
    node = reader.compose(text)
    if node is None:
        return Tree({}, {})
    if node.id != "mapping":
        raise reader.fault(node, "must be keys with values, such as `train: {seed: 1}`")
    return Tree(reader.value(node, (), 0), reader.lines)


def read_word(text: str, name: str) -> Any:
    """The value of a word on the command line: `0.1`, `true`, `null`, `[a, b]`, `{a: 1}`, or else just its text.

    Only what is bracketed or quoted is read as more than one value; `Is it good: {text} # yes` stays as it is.
    """
    if text.strip()[:1] in ("[", "{", '"', "'", "!", "&", "*"):
        reader = Reader(name)
        return reader.value(reader.compose(text), (), 0)
    try:
        node = Reader(name).compose(text)
    except RecipeError:
        return text
    if node is None:
        return None
    return Reader(name).value(node, (), 0) if node.value == text.strip() else text


class Reader:
    """Walks the nodes of a document, and refuses what a recipe does not need."""

    def __init__(self, name: str) -> None:
        from ruamel.yaml import YAML

        self.yaml = YAML(typ="safe", pure=True)
        self.yaml.version = (1, 2)
        self.name, self.lines, self.seen = name, {}, 0

    def compose(self, text: str):
        """The document's root node; none if it is empty."""
        from ruamel.yaml.error import YAMLError

        if len(text) > MOST_BYTES:
            raise RecipeError(f"{self.name}: is larger than 1 MiB; a recipe is a few lines")
        try:
            return self.yaml.compose(text)
        except YAMLError as error:
            mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
            problem = getattr(error, "problem", None) or str(error).split("\n")[0]
            place = f"{self.name}:{mark.line + 1}" if mark else self.name
            raise RecipeError(f"{place}: is not YAML: {problem}") from None
        except RecursionError:
            raise RecipeError(f"{self.name}: is nested too deep") from None

    def fault(self, node, what: str) -> RecipeError:
        return RecipeError(f"{self.name}:{node.start_mark.line + 1}: {what}")

    def value(self, node, path: Path, depth: int) -> Any:
        self.seen += 1
        tag = str(node.ctag) if hasattr(node, "ctag") else str(node.tag)
        if depth > MOST_DEPTH or self.seen > MOST_NODES:
            raise self.fault(node, "is nested too deep, or repeats itself too often")
        if tag not in PLAIN:
            raise self.fault(node, f"the tag {tag} is not allowed; write a plain value")
        if node.id == "mapping":
            return self.mapping(node, path, depth)
        if node.id == "sequence":
            return [self.value(item, (*path, str(n)), depth + 1) for n, item in enumerate(node.value)]
        try:
            return self.yaml.constructor.construct_object(node)
        except ValueError:
            raise self.fault(node, f"cannot be read: {node.value!r}") from None

    def mapping(self, node, path: Path, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, content in node.value:
            if key.id != "scalar" or not str(key.tag).endswith(":str"):
                raise self.fault(key, f"a key must be a word (got {getattr(key, 'value', '')!r:.40})")
            if key.value in found:
                raise self.fault(key, f"the key {key.value} stands on line {self.lines[(*path, key.value)]} already")
            self.lines[(*path, key.value)] = key.start_mark.line + 1
            found[key.value] = self.value(content, (*path, key.value), depth + 1)
        return found
