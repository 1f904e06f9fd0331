"""From text to tokens, and which of them stand for which part of the text."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from .words import LONGEST, MOST, Unlike, Words

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Part = tuple[int, int]


class Job(NamedTuple):
    """A text, and what is asked of it."""

    text: str
    parts: Sequence[Part]
    """From which character to which: their tokens are wanted."""
    apart: Sequence[int] = ()
    """Where a text ends that a model is given, and begins what it says: its tokens must be those that it would get."""


class Encoded(NamedTuple):
    """A text's tokens, and which of them stand for each part and nothing else, from one to before another."""

    ids: list[int]
    parts: list[Part]


class Encoder:
    """Makes tokens for one tokenizer. What its files say of cutting, filling up and special tokens is left aside."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder.values()
        self.added = re.compile("|".join(re.escape(token.content) for token in added) or "(?!)")
        self.separate = not any(token.lstrip or token.rstrip or token.single_word for token in added)
        """Whether what is between two added tokens has the tokens that it has alone."""
        self.ends: dict[str, list[int]] = {}

    @cached_property
    def words(self) -> Words | None:
        """A faster way for some texts of some tokenizers, whose outcome is the same."""
        if self.tokenizer.split_special_tokens:
            return None
        try:
            return Words(self.tokenizer.backend_tokenizer, lambda texts: [ids for ids, _ in self.plain(texts)])
        except Unlike:
            return None

    def encode(self, jobs: Sequence[Job]) -> list[Encoded]:
        """The tokens of many texts."""
        quick = [self.quick(job) for job in jobs]
        slow = [job for job, made in zip(jobs, quick, strict=True) if made is None]
        rest = zip(slow, self.plain([job.text for job in slow]), strict=True)
        return [self.placed(*next(rest)) if made is None else made for made in quick]

    def quick(self, job: Job) -> Encoded | None:
        """The tokens of a job, if its words tell them."""
        if self.words is None:
            return None
        places = sorted({place for part in job.parts for place in part})
        made = self.words.encode(job.text, places, job.apart)
        return made and Encoded(made[0], [(made[1][start], made[1][end]) for start, end in job.parts])

    def plain(self, texts: Sequence[str]) -> list[tuple[list[int], list[Part]]]:
        """The tokens of texts, and the characters that each token stands for."""
        backend = self.tokenizer.backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = self.tokenizer.split_special_tokens
        after = backend.post_processor
        backend.post_processor = None  # GPT-2's would say that a token does not stand for the space it begins with
        try:
            found = backend.encode_batch(list(texts), add_special_tokens=False)
        finally:
            backend.post_processor = after
        return [(each.ids, each.offsets) for each in found]

    def placed(self, job: Job, made: tuple[list[int], list[Part]]) -> Encoded:
        """The tokens of a job, its text cut where a prompt ends that alone would have others."""
        ids, offsets = made
        cuts = [at for at in job.apart if not self.alone(job.text[:at], ids, offsets)]
        if cuts:
            pieces = [job.text[start:end] for start, end in pairwise([0, *cuts, len(job.text)])]
            ids, offsets = [], []
            for start, (more, places) in zip([0, *cuts], self.plain(pieces), strict=True):
                ids += more
                offsets += [(start + first, start + last) for first, last in places]
        ends = [last for _, last in offsets]
        return Encoded(ids, [within(offsets, ends, *part) for part in job.parts])

    def alone(self, prompt: str, ids: list[int], offsets: list[Part]) -> bool:
        """Whether a text begins with the very tokens that its beginning has alone."""
        size = bisect_right(offsets, len(prompt), key=lambda place: place[1])
        if size < len(ids) and offsets[size][0] < len(prompt):
            return False
        *_, end = (0, *(added.end() for added in self.added.finditer(prompt)))
        if self.separate and len(prompt) - end <= LONGEST:  # what is before it is known to be the same
            expected = self.ending(prompt[end:])
            if expected == ids[size - len(expected) : size] and (
                not expected or offsets[size - len(expected)][0] == end
            ):
                return True
        return ids[:size] == self.plain([prompt])[0][0]

    def ending(self, text: str) -> list[int]:
        if text not in self.ends:
            if len(self.ends) >= MOST:
                self.ends.clear()
            self.ends[text] = self.plain([text])[0][0]
        return self.ends[text]


def within(offsets: list[Part], ends: list[int], start: int, end: int) -> Part:
    first, behind = bisect_right(ends, start), bisect_right(ends, end)
    while first < behind and offsets[first][0] < start:
        first += 1
    return first, behind
