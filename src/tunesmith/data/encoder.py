"""From text to tokens, and which of them stand for which part of the text."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

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

    def encode(self, jobs: Sequence[Job]) -> list[Encoded]:
        """The tokens of many texts."""
        made = self.plain([job.text for job in jobs])
        return [self.placed(job, ids, offsets) for job, (ids, offsets) in zip(jobs, made, strict=True)]

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

    def placed(self, job: Job, ids: list[int], offsets: list[Part]) -> Encoded:
        """The tokens of a job, its text cut where a prompt ends that alone would have others."""
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
        [(expected, _)] = self.plain([prompt])
        size = len(expected)
        return ids[:size] == expected and (size == len(ids) or offsets[size][0] >= len(prompt))


def within(offsets: list[Part], ends: list[int], start: int, end: int) -> Part:
    first, behind = bisect_right(ends, start), bisect_right(ends, end)
    while first < behind and offsets[first][0] < start:
        first += 1
    return first, behind
