"""The one renderer: an example as token ids, and which of them are to be learnt.

The tokenizer's own chat template writes the text. The targets are found in that text, never in a copy of it:
by the template's generation markers where it has them, else as the difference between the text up to an answer
and the text through it, which must be exact.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from .example import Example, Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from ..objectives.base import Targets

PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message.role + ': ' + message.content }}"
    "{% if message.role == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
"""Used, and said so, where a tokenizer brings no chat template."""


@dataclass(frozen=True)
class Tokens:
    """One sequence, and which of its tokens are to be learnt."""

    ids: list[int]
    learn: list[bool]
    label: int | None = None
    """Index of its class."""
    cut: int = 0
    """How many tokens were cut off at the end."""
    origin: str = ""
    """Where its example was read."""
    weights: list[float] | None = None
    """How much each token counts, where not all that are learnt count the same."""


def learnt(message: Message) -> bool:
    return message.role == "assistant" and message.weight != 0


class NoTarget(ValueError):
    """An example in which nothing is to be learnt."""


class Renderer:
    """Writes examples for one tokenizer, at most `max_length` tokens long."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, max_length: int, labels: Iterable[str] = ()) -> None:
        if not tokenizer.is_fast:
            raise DataError(
                f"model.path: {type(tokenizer).__name__} cannot tell which characters a token stands for;"
                " a fast tokenizer (tokenizer.json) is needed"
            )
        self.tokenizer, self.max_length = tokenizer, max_length
        self.labels = {label: number for number, label in enumerate(labels)}
        self.name = Path(tokenizer.name_or_path).name
        self.plain = tokenizer.chat_template is None
        """Whether the tokenizer brought no chat template, and PLAIN_TEMPLATE stands in."""
        if self.plain:
            tokenizer.chat_template = PLAIN_TEMPLATE

    def render(self, example: Example, targets: Targets) -> list[Tokens]:
        """An example as sequences: one, or for a long text as many as it takes. Raises NoTarget."""
        if targets == "label":
            made = [self.labelled(example)]
        else:
            made = self.whole(example) if targets == "text" else [self.dialogue(example)]
        return [replace(tokens, origin=example.origin) for tokens in made]

    def render_many(self, examples: Iterable[Example], targets: Targets) -> list[list[Tokens] | NoTarget]:
        """The same of several examples; what has nothing to learn comes back as the reason why."""
        found: list[list[Tokens] | NoTarget] = []
        for example in examples:
            try:
                found.append(self.render(example, targets))
            except NoTarget as fault:
                found.append(fault)
        return found

    def dialogue(self, example: Example) -> Tokens:
        """The dialogue of an example; what its assistant says, and the token that ends it, are learnt."""
        if not example.answers:
            raise NoTarget(
                "has no answer; objective sft learns answers: give prompts and answers, take objective=classify for"
                " labels or objective=pretrain for plain text, or build prompts with data.format.name=template"
            )
        messages = (*example.prompt, *example.answers[0].messages)
        text = self.text(messages)
        spans = self.spans(messages, text)
        ids, offsets = self.encode(text, [start for start, _ in spans])
        learn = [any(start <= first < last <= end for start, end in spans) for first, last in offsets]
        if not any(learn[: self.max_length]):
            where = (
                f"lies past data.max_length={self.max_length} (it is {len(ids)} tokens long)"
                if any(learn)
                else "is empty"
            )
            raise NoTarget(f"the answer {where}")
        return Tokens(ids[: self.max_length], learn[: self.max_length], cut=max(0, len(ids) - self.max_length))

    def encode(self, text: str, cuts: list[int]) -> tuple[list[int], list[tuple[int, int]]]:
        """The tokens of a text and the characters each stands for; none reaches over a cut.

        Where one would, the text is cut there, as it is when a model is asked: the prompt's tokens, then its own.
        """
        encoding = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids, offsets = encoding["input_ids"], encoding["offset_mapping"]
        across = [cut for cut in cuts if any(first < cut < last for first, last in offsets)]
        if not across:
            return ids, offsets
        ids, offsets = [], []
        for start, end in pairwise([0, *across, len(text)]):
            part = self.tokenizer(text[start:end], add_special_tokens=False, return_offsets_mapping=True)
            ids += part["input_ids"]
            offsets += [(start + first, start + last) for first, last in part["offset_mapping"]]
        return ids, offsets

    def whole(self, example: Example) -> list[Tokens]:
        """All the text of an example, in pieces of at most `max_length`; every token is learnt."""
        if example.answers:
            ids = self.tokenizer(self.text((*example.prompt, *example.answers[0].messages)), add_special_tokens=False)[
                "input_ids"
            ]
        else:
            ids = self.tokenizer(example.text)["input_ids"]
            end = self.tokenizer.eos_token_id
            ids = ids if end is None or ids[-1:] == [end] else [*ids, end]
        pieces = [ids[n : n + self.max_length] for n in range(0, len(ids), self.max_length)]
        sequences = [Tokens(piece, [False] + [True] * (len(piece) - 1)) for piece in pieces if len(piece) > 1]
        if not sequences:
            raise NoTarget("the text is empty")
        return sequences

    def labelled(self, example: Example) -> Tokens:
        """The text of an example, and the index of its label."""
        if example.text is None or example.label is None:
            raise NoTarget("has no text with a label; objective classify needs both (data.format.name=labelled)")
        if self.labels and example.label not in self.labels:
            raise NoTarget(
                f"the label '{example.label}' does not occur in the training rows ({', '.join(self.labels)})"
            )
        ids = self.tokenizer(example.text, truncation=True, max_length=self.max_length)["input_ids"]
        if not ids:
            raise NoTarget("the text is empty")
        cut = len(self.tokenizer(example.text)["input_ids"]) - len(ids) if len(ids) == self.max_length else 0
        return Tokens(ids, [False] * len(ids), label=self.labels.get(example.label), cut=cut)

    def prompt(self, messages: Iterable[Message]) -> list[int]:
        """What a model is given so that it answers."""
        return self.tokenizer(self.text(messages, answer=True), add_special_tokens=False)["input_ids"]

    def answer(self, example: Example, content: str) -> list[int]:
        """The tokens that are learnt when `content` answers the example's prompt."""
        said = Example(prompt=example.prompt, answers=(type(example.answers[0])((Message("assistant", content),)),))
        tokens = self.dialogue(said)
        first = len(self.prompt(example.prompt))
        return [token for token, learn in zip(tokens.ids[first:], tokens.learn[first:], strict=True) if learn]

    def text(self, messages: Iterable[Message], answer: bool = False) -> str:
        """The dialogue as the tokenizer's template writes it; with `answer`, up to where the assistant would speak."""
        return self.written(messages, answer)[0]

    def written(self, messages: Iterable[Message], answer: bool = False) -> tuple[str, list[tuple[int, int]]]:
        """The same, and where the template itself marks what the assistant generates."""
        from .chat_template import TooMuch, chat_template

        turns = [{"role": message.role, "content": message.content} for message in messages]
        given = {"messages": turns, "tools": None, "documents": None, "add_generation_prompt": answer}
        try:
            template = chat_template(self.tokenizer.get_chat_template())
            return template.render(**given, **dict[str, Any](self.tokenizer.special_tokens_map))
        except TooMuch as error:
            raise DataError(
                f"the chat template of {self.name} {error}; take the tokenizer of a model that you trust"
            ) from None
        except MemoryError:
            raise
        except Exception as error:  # somebody else's program: it may fail in any way
            roles = ", ".join(turn["role"] for turn in turns)
            raise DataError(f"the chat template of {self.name} refuses a dialogue of {roles}: {error}") from error

    def spans(self, messages: tuple[Message, ...], text: str) -> list[tuple[int, int]]:
        """Where in the text the answers stand that are to be learnt, each with the token that ends it."""
        if marked := self.marked(messages):
            return marked
        found = []
        for n, message in enumerate(messages):
            if not learnt(message):
                continue
            before, through = self.text(messages[:n], answer=True), self.text(messages[: n + 1])
            if not (text.startswith(through) and through.startswith(before)):
                raise NoTarget(
                    f"the chat template of {self.name} rewrites earlier turns, so the answer cannot be told apart"
                )
            found.append((len(before), self.end(through, before, message)))
        return found

    def marked(self, messages: tuple[Message, ...]) -> list[tuple[int, int]]:
        """The same where the template itself marks what the assistant generates."""
        if not re.search(r"\{%-?\s*generation\s*-?%\}", self.tokenizer.get_chat_template()):
            return []
        _, spans = self.written(messages)
        learn = [learnt(message) for message in messages if message.role == "assistant"]
        return [span for span, wanted in zip(spans, learn, strict=True) if wanted]

    def end(self, through: str, before: str, message: Message) -> int:
        """Where an answer ends: after the special token that follows its content, if one does."""
        at = through.find(message.content.strip(), len(before))
        at = len(before) if at < 0 else at
        at += len(message.content.strip())
        stops = [
            through.find(stop, at) + len(stop) for stop in self.tokenizer.all_special_tokens if stop in through[at:]
        ]
        return min(stops, default=len(through))
