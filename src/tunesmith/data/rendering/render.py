"""The one renderer: an example as token ids, and which of them are to be learnt.

The tokenizer's own chat template writes the text, and the targets are found in that text, never in a copy of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from ...errors import DataError
from ..example import Example, Message
from ..task import Task, kind_of
from .answers import ANSWERS, RATED, answers_of, check_answers, together
from .dialogue import Dialogue, Refused, Tools, Writer, unthinking
from .encoder import Encoded, Encoder, Job
from .fidelity import Change, injected, unfaithful
from .labels import in_tasks, told
from .tokens import NoTarget, Tokens, TooLong, Turn, check_letters, fit, lay
from .tooling import Tooling
from .turns import Finder, Span

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from ...objectives.base import Targets

Made = TypeVar("Made")

__all__ = ["NoTarget", "Renderer", "Tokens", "TooLong"]


class Options(Protocol):
    """What of a run's `data` decides how it is rendered; documented there."""

    @property
    def max_length(self) -> int: ...
    @property
    def truncation(self) -> str: ...
    @property
    def train_on(self) -> Sequence[str]: ...
    @property
    def thinking(self) -> str: ...


class Learnt(NamedTuple):
    """A stretch of a text that is learnt, and how much each of its tokens counts."""

    span: Span
    weight: float


class Draft(NamedTuple):
    """A dialogue's text, and what of it is learnt."""

    text: str
    learnt: list[Learnt]
    apart: list[int]
    """Where answers begin: a model is given what is before."""

    @property
    def job(self) -> Job:
        return Job(self.text, [(learnt.span.start, learnt.span.end) for learnt in self.learnt], self.apart)


class Renderer:
    """Writes examples for one tokenizer, at most `max_length` tokens long."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        data: Options,
        labels: Iterable[str] = (),
        tasks: Sequence[Task] = (),
    ) -> None:
        if not tokenizer.is_fast:
            raise DataError(
                f"model.path: {type(tokenizer).__name__} cannot tell which characters a token stands for;"
                " a fast tokenizer (tokenizer.json) is needed"
            )
        self.tokenizer, self.data = tokenizer, data
        labels = tuple(labels)
        known = tasks or ((Task(labels=labels),) if labels else ())
        self.tasks = {task.name: task for task in known}
        self.writer, self.encoder = Writer(tokenizer), Encoder(tokenizer)
        self.finder, self.tooling = Finder(self.writer), Tooling(self.writer)
        self.name, self.plain = self.writer.name, self.writer.plain

    def knowing(self, more: Mapping[str, Any]) -> Renderer:
        """The same renderer, whose template is given more than the dialogue: Qwen3's enable_thinking, say."""
        made, writer = copy(self), self.writer.knowing(more)
        made.writer, made.finder, made.tooling = writer, Finder(writer), Tooling(writer)
        return made

    def render(self, example: Example, targets: Targets) -> list[Tokens]:
        """An example as sequences: one, or for a long text as many as it takes. Raises NoTarget."""
        [made] = self.render_many([example], targets)
        if isinstance(made, NoTarget):
            raise made
        return made

    def render_many(self, examples: Sequence[Example], targets: Targets) -> list[list[Tokens] | NoTarget]:
        """The same of many at once, which is faster; an example without a target gives the reason."""
        if targets in ANSWERS:
            return self.dialogues(examples, targets)
        if targets == "mixed":
            return self.mixed(examples)
        makers = {"text": self.whole, "label": self.labelled, "prompts": self.asked}
        return [attempt(makers[targets], example) for example in examples]

    def mixed(self, examples: Sequence[Example]) -> list[list[Tokens] | NoTarget]:
        """Those with answers as dialogues, the others with what is told of their text."""
        said = iter(self.dialogues([one for one in examples if kind_of(one) == "answers"], "answers"))
        made = [next(said) if kind_of(one) == "answers" else attempt(self.labelled, one) for one in examples]
        return in_tasks(made, examples, self.tasks)

    # --- dialogues ----------------------------------------------------------------------------------------------------

    def dialogues(self, examples: Sequence[Example], targets: Targets) -> list[list[Tokens] | NoTarget]:
        """What is learnt of each example's dialogues, one an answer, or of the tokens that it brings."""
        counts = [answers_of(example, targets) for example in examples]
        wanted = [(example, n) for example, count in zip(examples, counts, strict=True) for n in range(count)]
        drafts = [attempt(self.draft, example, targets, n) for example, n in wanted]
        encoded = iter(self.encoder.encode([draft.job for draft in drafts if isinstance(draft, Draft)]))
        made: list[list[Tokens] | NoTarget] = []
        for (example, n), draft in zip(wanted, drafts, strict=True):
            if isinstance(draft, NoTarget):
                made.append(draft)
                continue
            made.append(attempt(self.finished, example, draft, next(encoded) if draft else None))
            if targets == "liked" and isinstance(made[-1], list):
                made[-1] = [replace(one, label=int(example.likes(n))) for one in made[-1]]
        rest, written = iter(made), targets != "ranked"
        return [
            next(rest) if count == 1 else together(example, list(islice(rest, count)), written)
            for example, count in zip(examples, counts, strict=True)
        ]

    def draft(self, example: Example, targets: Targets, number: int) -> Draft | None:
        """The text of an example's dialogue with one of its answers, and where in it is what is learnt; None if it
        brings tokens."""
        refuse_media(example)
        check_answers(example, targets)
        if example.tokens:
            return None
        messages = self.told((*example.prompt, *example.answers[number].messages))
        self.tooling.check(messages, example.tools)
        text, marks = self.writer.written(messages, example.tools)
        check_letters(text)
        self.writer.check_thinking(messages[-1], text)
        weights = self.weights(messages)
        if targets in RATED:  # all that was said before is the prompt
            weights = {n: weight for n, weight in weights.items() if n >= len(example.prompt)}
        dialogue = Dialogue(messages, tuple(example.tools))
        text, spans = self.finder.cut(dialogue, text, self.finder.spans(dialogue, text, marks, weights))
        learnt = [Learnt(span, weights[n]) for n, span in spans.items()]
        if "all" in self.data.train_on:
            learnt.insert(0, Learnt(Span(0, len(text), stops=self.writer.stopped(text)), 1.0))
        if not any(weight for _, weight in learnt):
            raise NoTarget(
                f"has nothing to learn: no turn of it is of {' or '.join(self.data.train_on)} (data.train_on),"
                " or all such turns have weight 0"
            )
        return Draft(text, learnt, [spans[n].start for n in spans if messages[n].role == "assistant"])

    def told(self, messages: Iterable[Message]) -> tuple[Message, ...]:
        """The messages, with what the assistant thinks or without, as data.thinking says."""
        return tuple(map(unthinking, messages) if self.data.thinking == "drop" else messages)

    def weights(self, messages: tuple[Message, ...]) -> dict[int, float]:
        """How much each turn counts, by its number: what the data say of it, else what data.train_on says."""
        found = {}
        for n, message in enumerate(messages):
            wanted = message.role in self.data.train_on or "last" in self.data.train_on and n == len(messages) - 1
            if message.weight is not None:
                found[n] = float(message.weight)
            elif wanted and "all" not in self.data.train_on:
                found[n] = 1.0
        for weight in found.values():
            if not 0 <= weight < math.inf:
                raise NoTarget(f"gives a turn the weight {weight:g}; expected a number of 0 or more")
        if "all" not in self.data.train_on:
            return {n: weight for n, weight in found.items() if weight}
        return found

    def finished(self, example: Example, draft: Draft | None, encoded: Encoded | None) -> list[Tokens]:
        """An example's sequences, cut to length."""
        if draft is None or encoded is None:
            whole, turns = self.given(example), []
        else:
            parts = zip(draft.learnt, encoded.parts, strict=True)
            turns = [Turn(*part, learnt.weight, learnt.span.stops) for learnt, part in parts]
            whole = lay(encoded.ids, turns, example.origin)
        if not any(whole.learn[1:]):
            raise NoTarget("the answer is empty")
        return fit(whole, turns, self.data.max_length, self.data.truncation)

    def given(self, example: Example) -> Tokens:
        """The tokens that an example brings, as they are."""
        ids, labels = map(list, example.tokens or ((), ()))
        if len(ids) != len(labels):
            raise NoTarget(f"has {len(ids)} token ids and {len(labels)} labels; each token needs one, -100 to mask it")
        words = len(self.tokenizer)
        if wrong := next((token for token in ids if not 0 <= token < words), None):
            raise NoTarget(f"has the token id {wrong}, but {self.name} knows ids from 0 to {words - 1}")
        for n, (token, label) in enumerate(zip(ids, labels, strict=True)):
            if label not in (-100, token):
                raise NoTarget(
                    f"labels[{n}] is {label}, but the token there is {token}: a causal model's label is the token"
                    " itself, or -100 where nothing is learnt; the model shifts them by one, the data must not"
                )
        return Tokens(ids, [label != -100 for label in labels], origin=example.origin)

    # --- texts --------------------------------------------------------------------------------------------------------

    def whole(self, example: Example) -> list[Tokens]:
        """All the text of an example, in pieces of at most `max_length`; every token is learnt."""
        refuse_media(example)
        ids, longest = self.text_ids(example), self.data.max_length
        if self.data.truncation == "drop" and len(ids) > longest:
            raise TooLong(len(ids), len(ids) - 1, longest)
        pieces = [ids[n : n + longest] for n in range(0, len(ids), longest)]
        sequences = [
            Tokens(piece, [False] + [True] * (len(piece) - 1), origin=example.origin, lost=int(n > 0))
            for n, piece in enumerate(pieces)
            if len(piece) > 1
        ]
        if not sequences:
            raise NoTarget("the text is empty")
        return sequences

    def text_ids(self, example: Example) -> list[int]:
        """The tokens of a text and of its end."""
        if example.tokens:
            return list(example.tokens[0])
        if example.answers:
            text = self.writer.text(self.told((*example.prompt, *example.answers[0].messages)), example.tools)
            check_letters(text)
            return self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        check_letters(example.text or "")
        ids: list[int] = self.tokenizer(example.text or "", verbose=False)["input_ids"]
        end: Any = self.tokenizer.eos_token_id
        return ids if end is None or ids[-1:] == [end] else [*ids, end]

    def labelled(self, example: Example) -> list[Tokens]:
        """The text of an example, and what is told of it."""
        refuse_media(example)
        said, text = told(example, self.tasks), example.text or ""
        check_letters(text)
        ids, longest = self.tokenizer(text, verbose=False)["input_ids"], self.data.max_length
        if not ids:
            raise NoTarget("the text is empty")
        cut = max(0, len(ids) - longest)
        if cut and self.data.truncation == "drop":
            raise TooLong(len(ids), 0, longest)
        if cut and self.data.truncation == "split":
            raise NoTarget(
                f"is {len(ids)} tokens long, more than data.max_length={longest}, and its label is of all of it:"
                " data.truncation=split cannot be; take right, left or drop"
            )
        ids = self.shortened(text) if cut else ids
        return [Tokens(ids, [False] * len(ids), cut=cut, origin=example.origin, **said)]

    def shortened(self, text: str) -> list[int]:
        """The tokens of a text that is too long, with the special ones that the tokenizer puts around it."""
        side, self.tokenizer.truncation_side = self.tokenizer.truncation_side, self.data.truncation
        try:
            return self.tokenizer(text, truncation=True, max_length=self.data.max_length)["input_ids"]
        finally:
            self.tokenizer.truncation_side = side

    # --- asking -------------------------------------------------------------------------------------------------------

    def asked(self, example: Example) -> list[Tokens]:
        """What a model is given so that it answers, or goes on with a text; nothing of it is learnt."""
        refuse_media(example)
        check_letters(example.text or "")
        ids = self.prompt(example.prompt, example.tools) if example.prompt else self.text_begun(example.text or "")
        if not ids:
            raise NoTarget("has no prompt to be answered (data.format.name=truth, or prompts of any other format)")
        if len(ids) > self.data.max_length and self.data.truncation == "drop":
            raise TooLong(len(ids), 0, self.data.max_length)
        if len(ids) > self.data.max_length:
            raise NoTarget(
                f"has a prompt of {len(ids)} tokens, more than data.max_length={self.data.max_length}; a prompt that is"
                " cut is another one: make max_length larger, or leave such rows out with data.truncation=drop"
            )
        return [Tokens(ids, [False] * len(ids), origin=example.origin)]

    def text_begun(self, text: str) -> list[int]:
        """The tokens of a text that goes on."""
        ids: list[int] = self.tokenizer(text, verbose=False)["input_ids"]
        return ids[:-1] if ids[-1:] == [self.tokenizer.eos_token_id] else ids

    def prompt(self, messages: Iterable[Message], tools: Tools = ()) -> list[int]:
        """What a model is given so that it answers."""
        return self.tokenizer(self.text(messages, tools, answer=True), add_special_tokens=False, verbose=False)[
            "input_ids"
        ]

    def text(self, messages: Iterable[Message], tools: Tools = (), answer: bool = False) -> str:
        """The dialogue as the tokenizer's template writes it; with `answer`, up to where the assistant would speak."""
        return self.writer.text(self.told(messages), tools, answer)

    def answer(self, example: Example, content: str) -> list[int]:
        """The tokens that are learnt when `content` answers the example's prompt."""
        messages = self.told((*example.prompt, Message("assistant", content)))
        text, marks = self.writer.written(messages, example.tools)
        last = len(messages) - 1
        span = self.finder.spans(Dialogue(messages, tuple(example.tools)), text, marks, [last])[last]
        [(ids, [(first, end)])] = self.encoder.encode([Job(text, [(span.start, span.end)], [span.start])])
        return ids[first:end]

    # --- what was not meant -------------------------------------------------------------------------------------------

    def unfaithful(self, example: Example) -> Change | None:
        """How the template's text differs from what the example's messages say; None if it does not."""
        dialogues = [self.told((*example.prompt, *answer.messages)) for answer in example.answers]
        found = (unfaithful(self.writer, messages, example.tools) for messages in dialogues)
        return next(filter(None, found), None)

    def injected(self, example: Example) -> str | None:
        """Which turn holds the text of a special token, in words; None if none does."""
        messages = [*example.prompt, *(message for answer in example.answers for message in answer.messages)]
        return injected(self.writer, messages)


def refuse_media(example: Example) -> None:
    if example.media is Example.media:  # none, as of most
        return
    if kinds := [kind for kind, paths in vars(example.media).items() if paths]:
        raise NoTarget(f"holds {', '.join(kinds)}: media cannot be learnt from yet; leave such rows out")


def attempt(make: Callable[..., Made], *given: Any) -> Made | NoTarget:
    """What is made, or why it cannot be."""
    try:
        return make(*given)
    except NoTarget as fault:
        return fault
    except Refused as fault:
        return NoTarget(str(fault))
