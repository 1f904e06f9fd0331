"""A row's tokens as text, piece by piece, up to where it is to stop."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from ..model.engine import Ids


class Text:
    """What has been written, and how much of it may be shown: no half character, nothing that may become a stop."""

    def __init__(self, tokenizer: Any, stops: tuple[str, ...]) -> None:
        from tokenizers.decoders import DecodeStream

        self.tokenizer, self.stops = tokenizer, stops
        self.stream = DecodeStream(skip_special_tokens=True)
        self.waiting: Ids = []
        """Tokens that are no text yet."""
        self.said = ""
        self.shown = 0
        self.starts: list[int] = []
        """Where each token's text begins."""

    def add(self, token: int) -> None:
        """One token more."""
        self.starts.append(len(self.said))
        if piece := self.step(token):
            self.said += piece
            self.waiting.clear()
        else:
            self.waiting.append(token)

    def step(self, token: int) -> str | None:
        """What a token adds. Of a tokenizer whose tokens may be bytes, some that make no character change how those
        before them read, and what is shown stays: then it goes on behind that."""
        from tokenizers.decoders import DecodeStream

        core = self.tokenizer.backend_tokenizer
        try:
            return self.stream.step(core, token)
        except Exception:  # noqa: BLE001 - tokenizers has no other kind
            self.stream = DecodeStream(list(self.waiting), skip_special_tokens=True)
            return self.stream.step(core, token)

    def stopped(self) -> bool:
        """Whether a stop stands in the text, which then ends before it."""
        longest = max(map(len, self.stops), default=0)
        begin = max(0, self.shown - longest)
        found = [at for stop in self.stops if (at := self.said.find(stop, begin)) >= 0]
        if found:
            self.said = self.said[: min(found)]
        return bool(found)

    def finish(self, ids: Ids) -> None:
        """Bring out what waited for more tokens; half a character becomes a replacement character."""
        whole = self.tokenizer.backend_tokenizer.decode(ids, skip_special_tokens=True)
        if whole.startswith(self.said):
            self.said = whole

    def fresh(self, over: bool = False) -> str:
        """What may be shown and has not been."""
        end = len(self.said) if over else len(self.said) - self.held()
        piece = self.said[self.shown : end]
        self.shown = max(self.shown, end)
        return piece

    def held(self) -> int:
        """How much at the end of the text could be the beginning of a stop."""
        for length in range(max(map(len, self.stops), default=1) - 1, 0, -1):
            if any(stop.startswith(self.said[-length:]) for stop in self.stops if len(stop) > length):
                return min(length, len(self.said) - self.shown)
        return 0


@lru_cache(maxsize=1)
def letters() -> dict[str, int]:
    """The byte that each letter of a byte-level vocabulary stands for: printable ones for themselves, the others, in
    their order, for what follows 255."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + n): byte for n, byte in enumerate(rest)}


def spelt(tokenizer: Any, token: int) -> tuple[str, list[int] | None]:
    """A token as text and as bytes; several tokens may share a character, which only their bytes then tell."""
    text = tokenizer.backend_tokenizer.decode([token], skip_special_tokens=False)
    if "\ufffd" not in text:
        return text, list(text.encode())
    word = tokenizer.convert_ids_to_tokens(token)
    if word.startswith("<0x") and word.endswith(">"):
        return text, [int(word[3:-1], 16)]
    if all(letter in letters() for letter in word):
        return text, [letters()[letter] for letter in word]
    return text, None
