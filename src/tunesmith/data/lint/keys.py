"""What stands in a turn and is not read."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence

from .base import Item, Origin, Rule, Said, Watch, rule

MOST = 100
"""Keys that are told apart."""
NAMED = 10
"""Keys that are named."""


@rule("unread-key")
class UnreadKey(Rule):
    """A turn has a key that no format reads, so what it says counts for nothing."""

    zh = "某一轮含有任何格式都不读取的键，其内容不起作用。"
    explained = Said(
        "An id or a time may stand there for nothing; a weight under another name may not. Read are role, content,"
        " tool_calls, function_call, name, tool_call_id, reasoning_content, thinking, reasoning, weight and train;"
        " rename what is meant, such as loss to weight. Keys without a value do not count.",
        "编号、时间之类不读也无妨，换了名字的权重则不然。会读取的键有 role、content、tool_calls、function_call、name、"
        "tool_call_id、reasoning_content、thinking、reasoning、weight、train；若另有所指，请改名，"
        "例如把 loss 改为 weight。没有值的键不计。",
    )

    def watch(self, renderer, targets):
        return Unread()


class Unread(Watch):
    """Counts keys, and notes the rows that have any."""

    def __init__(self) -> None:
        self.keys: dict[str, list[int]] = {}
        """Of each key, the row that has it first, and how many turns have it."""
        self.rows = array("q")

    def gather(self, items: Sequence[Item]) -> list[tuple[int, list[str]]] | None:
        return [
            (number, keys)
            for number, item in enumerate(items)
            if (keys := [key for turn in item.turns for key in turn.unread])
        ] or None

    def take(self, gathered: list[tuple[int, list[str]]], first: int) -> None:
        for number, keys in gathered:
            self.rows.append(first + number)
            for key in keys:
                if key in self.keys:
                    self.keys[key][1] += 1
                elif len(self.keys) < MOST:
                    self.keys[key] = [first + number, 1]

    def end(self, origin: Origin) -> Iterator[tuple[int, Said]]:
        found = list(self.keys.items())[:NAMED]
        more = len(self.keys) - len(found)
        en = [f"{key!r:.60} in {turns:,} turns, first in {origin(first)}" for key, (first, turns) in found]
        zh = [f"{key!r:.60} 见于 {turns:,} 轮，最先在 {origin(first)}" for key, (first, turns) in found]
        named = Said(
            f"not read: {'; '.join(en)}{f'; and {more} more keys' if more else ''}",
            f"未读取：{'；'.join(zh)}{f'；另有 {more} 个键' if more else ''}",
        )
        for number in self.rows:
            yield number, named
