"""What stands beside a dialogue: images, videos and audios, and the tools that may be called."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from ...config.record import record
from ..example import Example, Media, Message
from .base import Format, Maybe, Row, given, json_in, shown, text_in

KINDS = {
    "image": "images",
    "image_url": "images",
    "input_image": "images",
    "video": "videos",
    "video_url": "videos",
    "audio": "audios",
    "audio_url": "audios",
    "input_audio": "audios",
}
"""Parts of a turn that are no text, and which media they are."""
MARKS = {"images": "<image>", "videos": "<video>", "audios": "<audio>"}
"""What stands in the text where one of the media is spoken of."""


@record
class Dialogue(Format):
    """What every format of dialogues has beside what is said: a system message, tools and media."""

    system: Maybe = "system"
    """Column of the system message, where it is no turn."""
    tools: Maybe = "tools"
    """Column of the tools that may be called: a list of JSON schemas, or its JSON."""
    images: Maybe = "images"
    """Column of the paths or addresses of images, in the order of the <image> marks in the text."""
    videos: Maybe = "videos"
    """The same of videos."""
    audios: Maybe = "audios"
    """The same of audios."""

    def beside(self, row: Row, turns: Sequence[Any] = (), content: str = "content") -> dict[str, Any]:
        """The tools and the media of a row, in their columns or in parts of its turns."""
        parts = [turn for turn in turns if isinstance(turn.get(content), list)]
        if not parts and not any(row.get(column) for column in self.columns_beside):
            return {}
        columns = {"images": self.images, "videos": self.videos, "audios": self.audios}
        return {"tools": tools_in(row, self.tools), "media": media_in(row, columns, parts, content)}

    @cached_property
    def columns_beside(self) -> list[str]:
        return [column for column in (self.tools, self.images, self.videos, self.audios) if column]

    def opened(self, row: Row, turns: tuple[Message, ...]) -> tuple[Message, ...]:
        """The turns after the system message of the row's own column, if it has one."""
        if self.system is None or not given(row, self.system):
            return turns
        message = Message("system", text_in(row, self.system))
        if turns and turns[0].role == "system":
            if turns[0].content == message.content:
                return turns
            raise ValueError(
                f"has one system message in column '{self.system}' and another in its first turn;"
                " leave out either, or ignore the column with data.format.system=null"
            )
        return (message, *turns)

    def beside_row(self, example: Example) -> Row:
        """The columns beside the turns."""
        said = {
            "tools": [*example.tools],
            "images": [*example.media.images],
            "videos": [*example.media.videos],
            "audios": [*example.media.audios],
        }
        lost = [what for what, value in said.items() if value and getattr(self, what) is None]
        if lost:
            raise ValueError(f"{self.name} cannot hold {', '.join(lost)}, which have no column")
        return {getattr(self, what): value for what, value in said.items() if value}


def media_in(row: Row, columns: Mapping[str, str | None], turns: Sequence[Any], content: str) -> Media:
    """The media of a row: from their columns, or out of the parts of its turns."""
    found = {kind: listed(row[column], column) for kind, column in columns.items() if column and given(row, column)}
    inside: dict[str, tuple[str, ...]] = {}
    for kind, address in placed(turns, content):
        inside[kind] = (*inside.get(kind, ()), address)
    both = [str(columns[kind]) for kind in inside if kind in found]
    if both:
        raise ValueError(f"column '{both[0]}' names media, and so do the turns; leave either out")
    return Media(**found, **inside)


def placed(turns: Sequence[Any], content: str) -> Iterator[tuple[str, str]]:
    """The media that parts of turns name themselves."""
    for part in (part for turn in turns for part in turn[content] if isinstance(part, dict)):
        kind = part.get("type")
        value = part.get(kind) if isinstance(kind, str) else None
        if kind in KINDS and value is not None:
            yield KINDS[kind], address(value, f"the part '{kind}' of a turn")


def listed(value: Any, column: str) -> tuple[str, ...]:
    if isinstance(value, str) and value.startswith("["):
        value = json_in(value, f"column '{column}'")
    several = value if isinstance(value, list) else [value]
    return tuple(address(item, f"column '{column}'") for item in several)


def address(value: Any, what: str) -> str:
    """A path or an address; what comes as bytes becomes a data: address, so that it is carried as it is."""
    match value:
        case str(path) if path:
            return path
        case {"bytes": bytes(content)} | {"data": bytes(content)}:
            return f"data:;base64,{b64encode(content).decode()}"
        case {"path": str(path)} | {"url": str(path)} if path:
            return path
        case {"data": str(content), "format": str(kind)}:
            return f"data:audio/{kind};base64,{content}"
    raise ValueError(f"{what} must hold a path, an address, or an object with path, url or bytes (got {shown(value)})")


def tools_in(row: Row, column: str | None) -> tuple[dict[str, Any], ...]:
    """The tools of a row, each as {type: function, function: its schema}."""
    if column is None or not given(row, column):
        return ()
    value = row[column]
    if isinstance(value, str):
        value = json_in(value, f"column '{column}'")
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        raise ValueError(f"column '{column}' must be a list of tools, or JSON of one (got {shown(value)})")
    return tuple(tool(item, column) for item in value)


def tool(item: Any, column: str) -> dict[str, Any]:
    if isinstance(item, str):
        item = json_in(item, f"a tool of column '{column}'")
    match item:
        case {"type": "function", "function": {"name": str()}}:
            return item
        case {"name": str()}:
            return {"type": "function", "function": item}
    raise ValueError(f"a tool of column '{column}' must be an object with a name (got {shown(item)})")
