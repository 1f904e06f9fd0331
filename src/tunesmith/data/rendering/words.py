"""Tokens of a text, word by word: what a byte-level tokenizer made of a word once it makes of it always.

Such a tokenizer cuts a text at its added tokens, cuts what is between them into words by a pattern, and makes tokens
of each word alone. Here Python's pattern cuts and the words are remembered, which is several times faster; where a
pattern always cuts before a single space, what stands between two spaces is remembered whole, and no pattern need look.
That it comes to the same is tried before it is used, and with each letter beyond ASCII when it is first met: tables of
Unicode are of different years. For tokenizers and letters that differ there is nothing here.
"""

from __future__ import annotations

import json
import random
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, product
from typing import TYPE_CHECKING, Any

import regex

from ...script import beyond_ascii

if TYPE_CHECKING:
    from tokenizers import Tokenizer

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
GPT2_DIGITS_APART = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+"
ASCII = {"L": "A-Za-z", "Lu": "A-Z", "Ll": "a-z", "N": "0-9", "Nd": "0-9"} | dict.fromkeys(["Lt", "Lm", "Lo", "M"], "")
ASCII |= {"P": re.escape("!\"#%&'()*,-./:;?@[\\]_{}"), "S": re.escape("$+<=>^`|~")}
"""The characters that a class of Unicode has in ASCII."""
NORMAL = {"NFC", "NFD", "NFKC", "NFKD"}
"""Ways of normalising that leave ASCII, and what is in their form already, as it is."""
LONGEST = 64
"""Characters of a stretch of text that is remembered whole."""
MOST = 200_000
"""Words or stretches that are remembered."""
LONG, FEW = 20_000, 100
"""The same of longer ones: a system turn, or a prompt, that stands in row after row."""
LONE = re.compile(r" (?<=\S )(?=\S)")
"""A space between two that are none."""


class Unlike(Exception):
    """A tokenizer works in another way."""


class Spaced(Exception):
    """Where several spaces are together, none of them ends a piece."""


class Words:
    """Makes tokens as a tokenizer's backend does. Raises Unlike where it cannot."""

    def __init__(self, backend: Tokenizer, plainly: Callable[[list[str]], list[list[int]]]) -> None:
        added = backend.get_added_tokens_decoder()
        if any(token.lstrip or token.rstrip or token.single_word for token in added.values()):
            raise Unlike
        longest_first = sorted((token.content for token in added.values()), key=len, reverse=True)
        self.added = re.compile(f"({'|'.join(map(re.escape, longest_first)) or '(?!)'})")
        pattern = pattern_of(backend)
        self.word, self.wide = re.compile(in_ascii(pattern), re.ASCII), regex.compile(pattern)
        self.cut, self.form = backend.pre_tokenizer, (described(backend.normalizer) or {}).get("type")
        self.same: dict[str, bool] = {}
        self.ids: dict[str, Sequence[int]] = Known(backend)
        self.stretches: dict[str, Sequence[int]] = {}
        self.long: dict[str, Sequence[int]] = {}
        self.first, self.later = Pieces(self.cut_up, ""), Pieces(self.cut_up, " ")
        self.at_spaces = cuts_at_spaces(pattern, self.word)
        self.special = {token.content: [number] for number, token in added.items()}
        texts = samples(longest_first)
        tried = zip(map(self.encode, texts), plainly(texts), strict=True)
        if self.word.groups or any(made not in (None, (ids, {})) for made, ids in tried):
            raise Unlike

    def encode(
        self, text: str, places: Sequence[int] = (), apart: Iterable[int] = ()
    ) -> tuple[list[int], dict[int, int]] | None:
        """The tokens of a text, and how many of them are before each place; places are in rising order.

        None where that cannot be told here: a place is within a word, or what ends at a place that is to be `apart`
        would alone have other tokens.
        """
        if not text.isascii() and not self.familiar(text):
            return None
        ids: list[int] = []
        before: dict[int, int] = {}
        start = at = 0
        for number, stretch in enumerate(self.added.split(text)):
            special, end = number % 2 == 1, start + len(stretch)
            made = self.special[stretch] if special else self.tokens(stretch)
            if made is None:
                return None
            while at < len(places) and places[at] < end:
                inside = places[at] - start
                count = self.upto(stretch, inside, made, places[at] in apart) if inside and not special else 0
                if count is None or inside and special:
                    return None
                before[places[at]] = len(ids) + count
                at += 1
            ids += made
            start = end
        return ids, before | dict.fromkeys(places[at:], len(ids))

    def tokens(self, stretch: str) -> Sequence[int] | None:
        """The tokens of a text without added tokens; None where the pattern leaves out some of it."""
        known, most = (self.stretches, MOST) if len(stretch) <= LONGEST else (self.long, FEW)
        if (made := known.get(stretch)) is not None:
            return made
        made = self.pieced(stretch) if self.at_spaces else self.cut_up(stretch)
        if made is not None and len(stretch) <= LONG:
            if len(known) >= most:
                known.clear()
            known[stretch] = made
        return made

    def pieced(self, stretch: str) -> Sequence[int] | None:
        """The same, piece by piece where it can be."""
        first, *later = stretch.split(" ")
        try:
            return [*self.first[first], *chain.from_iterable(map(self.later.__getitem__, later))]
        except Spaced:
            pass
        first, *later = LONE.split(stretch)
        last = later.pop() if later else None
        try:
            ids = [*self.first.of(first), *chain.from_iterable(map(self.later.__getitem__, later))]
            return ids if last is None else [*ids, *self.later.of(last)]
        except Spaced:
            return self.cut_up(stretch)

    def cut_up(self, stretch: str) -> tuple[int, ...] | None:
        """The same, cut by the pattern."""
        words = (self.word if stretch.isascii() else self.wide).findall(stretch)
        if sum(map(len, words)) != len(stretch):
            return None
        return tuple(chain.from_iterable(map(self.ids.__getitem__, words)))

    def familiar(self, text: str) -> bool:
        """Whether the words of a text are cut here as the tokenizer cuts them."""
        letters = set(beyond_ascii(text))
        for letter in letters - self.same.keys():
            self.same[letter] = self.cuts_alike(letter)
        alike = all(map(self.same.__getitem__, letters))
        return alike and (self.form is None or unicodedata.is_normalized(self.form, text))

    def cuts_alike(self, letter: str) -> bool:
        """Whether a letter among others is cut from them in the same places."""
        if unicodedata.category(letter) in ("Cn", "Cs"):
            return False
        text = f"a{letter}b 1{letter}2 {letter}{letter} !{letter}! \n{letter}\n'{letter} {letter}'s  {letter}"
        found = [place for _, place in self.cut.pre_tokenize_str(text)]
        return found == [word.span() for word in self.wide.finditer(text)]

    def upto(self, stretch: str, place: int, made: Sequence[int], apart: bool) -> int | None:
        """How many tokens of a stretch are before a place in it."""
        count = 0
        for word in (self.word if stretch.isascii() else self.wide).finditer(stretch):
            if word.start() >= place:
                break
            count += len(self.ids[word[0]])
            if word.end() > place:
                return None
        if apart and list(self.tokens(stretch[:place]) or ()) != list(made[:count]):
            return None
        return count


class Known(dict[str, Sequence[int]]):
    """Words and their tokens; a word that is new is asked for."""

    def __init__(self, backend: Tokenizer) -> None:
        from tokenizers.pre_tokenizers import ByteLevel

        self.bytes, self.model = ByteLevel(add_prefix_space=False, use_regex=False), backend.model
        self.numbers: dict[int, int] = {}
        """Each number as one object, which all words share: less memory to go through."""

    def __missing__(self, word: str) -> tuple[int, ...]:
        [(spelt, _)] = self.bytes.pre_tokenize_str(word)
        found = [token.id for token in self.model.tokenize(spelt)]
        made = tuple([self.numbers.setdefault(number, number) for number in found])
        if len(word) <= LONGEST:
            if len(self) >= MOST:
                self.clear()
            self[word] = made
        return made


class Pieces(dict[str, Sequence[int]]):
    """What stands between spaces, and its tokens with what is before it. Raises Spaced where a space goes on in it."""

    def __init__(self, make: Callable[[str], Sequence[int] | None], before: str) -> None:
        self.make, self.before = make, before

    def __missing__(self, piece: str) -> Sequence[int]:
        if spaced(piece):
            raise Spaced
        made = self.make(self.before + piece)
        if made is None:
            raise Spaced
        if len(piece) <= LONGEST:
            if len(self) >= MOST:
                self.clear()
            self[piece] = made
        return made

    def of(self, group: str) -> Sequence[int]:
        """The same of a piece that nothing goes on from, though space may be at its ends."""
        if not spaced(group):
            return self[group]
        made = self.make(self.before + group)
        if made is None:
            raise Spaced
        return made


def spaced(piece: str) -> bool:
    return not piece or piece[0].isspace() or piece[-1].isspace()


def pattern_of(backend: Tokenizer) -> str:
    """The pattern by which a tokenizer cuts text into words."""
    from tokenizers.models import BPE

    model, normalizer = backend.model, described(backend.normalizer)
    if not isinstance(model, BPE) or model.dropout or (normalizer and normalizer["type"] not in NORMAL):
        raise Unlike
    match described(backend.pre_tokenizer):
        case {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}:
            return GPT2
        case {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Digits", "individual_digits": True},
                {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
            ],
        }:
            return GPT2_DIGITS_APART
        case {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": str(pattern)}, "behavior": "Isolated", "invert": False},
                {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
            ],
        }:
            return pattern
    raise Unlike


def described(part: Any) -> Any:
    """How a part of a tokenizer stands in tokenizer.json."""
    return None if part is None else json.loads(part.__getstate__())


def in_ascii(pattern: str) -> str:
    """A pattern whose classes of Unicode are written out for ASCII."""
    made, inside, at = "", False, 0
    while at < len(pattern):
        if kind := re.compile(r"\\p\{(\w+)\}").match(pattern, at):
            letters = ASCII.get(kind[1])
            if letters is None or not letters and not inside:
                raise Unlike
            made += letters if inside else f"[{letters}]"
            at = kind.end()
            continue
        size = 2 if pattern[at] == "\\" else 1
        inside = (inside or pattern[at] == "[") and pattern[at] != "]"
        made += pattern[at : at + size]
        at += size
    return made


def cuts_at_spaces(pattern: str, word: re.Pattern[str]) -> bool:
    """Whether a pattern always cuts before a space between two that are none, and looks at neither side for the other.

    It is tried with two signs of every kind on either side.
    """
    if "(?<" in pattern or r"\b" in pattern:
        return False
    sides = ["".join(signs) for count in (1, 2) for signs in product("aSl1'!\n", repeat=count)]
    before = {side: word.findall(side) for side in sides if not side.endswith("\n")}
    after = {side: word.findall(f" {side}") for side in sides if not side.startswith("\n")}
    return all(
        word.findall(f"{one} {other}") == [*words, *others]
        for one, words in before.items()
        for other, others in after.items()
    )


def samples(added: list[str]) -> list[str]:
    """Texts to try with: words, numbers, space, marks and controls of ASCII in all neighbourhoods, and added tokens."""
    draw = random.Random(0)
    pieces = [
        *map(chr, range(128)),
        *"aeinorst",
        *"é电½\u00a0\u0301" * 3,
        *" " * 9,
        *"\n" * 5,
        "\r\n",
        "  ",
        "'s",
        "'LL",
        "the",
        "2026",
        *added,
    ]
    return ["".join(draw.choices(pieces, k=draw.randrange(1, 24))) for _ in range(200)]
