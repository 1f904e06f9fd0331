"""Asking a causal model: write an answer, or rank given ones. The prompts' common beginning is computed once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import cached_property, partial
from os.path import commonprefix

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from .attention import OURS
from .ends import ends_by, ends_of
from .going import Each, Going, Prefilled, Together, alike
from .memory import Unsuited
from .rounding import same
from .soft import soft

Ids = list[int]


class Engine:
    """Reads prompts in batches of `batch_size`, the longest together, and keeps what they have in common."""

    def __init__(self, model, tokenizer, batch_size: int = 32) -> None:
        self.model, self.tokenizer, self.batch_size = model, tokenizer, batch_size
        self.device = next(model.parameters()).device
        self.soft = soft(model)

    def read(self, ids: Tensor, place: Tensor, **more):
        """What the model makes of tokens at these places, after what it has in its memory."""
        inputs = {"input_ids": ids, "position_ids": place, "use_cache": True, **more}
        if self.soft:
            return self.soft.bare(**self.soft.given(inputs))
        return self.model(**inputs)

    def begun(self, prompt: Ids) -> Ids:
        """A prompt after the virtual tokens of a soft one, if there is one."""
        return [*(self.soft.words if self.soft else []), *prompt]

    def stops(self) -> set[int]:
        """The tokens that end an answer."""
        return self.told.union(ends_of(self.model))

    @cached_property
    def told(self) -> set[int]:
        """Those that the tokenizer tells of."""
        return ends_by(self.tokenizer)

    def write(self, prompts: Sequence[Ids], max_new_tokens: int, pick=None) -> list[str]:
        """An answer to each, up to a token that ends it: word after word the likeliest, or what `pick` takes."""
        return [text for text, _ in self.answers(prompts, max_new_tokens, pick)]

    def answers(self, prompts: Sequence[Ids], max_new_tokens: int, pick=None) -> list[tuple[str, bool]]:
        """The same, and whether each came to its end, or was cut off after `max_new_tokens`."""
        answers = [("", False)] * len(prompts)
        with reading(self.model):
            for chosen, read in self.batches(prompts):
                ids: list[Ids] = [[] for _ in chosen]
                for step in self.steps(read, max_new_tokens, pick or greedy):
                    for row, token in step:
                        ids[row].append(token)
                for n, said in zip(chosen, ids, strict=True):
                    text = self.tokenizer.decode(said, skip_special_tokens=True)
                    answers[n] = text, len(said) < max_new_tokens
        return answers

    def stream(self, prompt: Ids, max_new_tokens: int, pick=None) -> Iterator[str]:
        """An answer piece by piece, as it is written: word after word the likeliest, or what `pick` takes."""
        with reading(self.model):
            ids, said, text = [], "", ""
            for step in self.steps(self.prefill([self.begun(prompt)], []), max_new_tokens, pick or greedy):
                ids += [token for _, token in step]
                text = self.tokenizer.decode(ids, skip_special_tokens=True)
                if not text.endswith("\ufffd"):  # half of a character that takes several tokens
                    yield text[len(said) :]
                    said = text
            if text != said:  # cut off within one
                yield text[len(said) :]

    def rank(self, prompts: Sequence[Ids], options: Sequence[Sequence[Ids]]) -> Tensor:
        """[N, O] the log-probability of each option after its prompt, summed over the option's tokens."""
        ranks = torch.zeros(len(prompts), len(options[0]))
        with reading(self.model):
            for chosen, read in self.batches(prompts):
                for number in range(ranks.shape[1]):
                    ranks[chosen, number] = self.likelihood(read, [options[n][number] for n in chosen])
        return ranks

    def likelihood(self, read: Prefilled, option: Sequence[Ids]) -> Tensor:
        """[B] the log-probability of one option a row, after what was read."""
        width = max(map(len, option))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in option], device=self.device)
        there = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in option], device=self.device)
        logits = read.logits.unsqueeze(1)
        if width > 1:
            place = read.place.unsqueeze(1) + torch.arange(width - 1, device=self.device)
            attend = torch.cat([read.attend, there[:, :-1]], 1)
            out = self.read(ids[:, :-1], place, attention_mask=attend, past_key_values=deepcopy(read.cache))
            logits = torch.cat([logits, out.logits.float()], 1)
        token = logits.log_softmax(-1).gather(-1, ids.unsqueeze(-1)).squeeze(-1)
        return (token * there).sum(-1).cpu()

    def batches(self, prompts: Sequence[Ids]) -> Iterator[tuple[list[int], Prefilled]]:
        """Each batch of prompts, read: which ones they are, and the model's memory of them. Whoever asks is `reading`
        himself, for as long as he goes on with any: this would leave it with the last batch."""
        prompts = [self.begun(prompt) for prompt in prompts]
        common = list(commonprefix([list(prompt[:-1]) for prompt in prompts])) if len(prompts) > 1 else []
        order = sorted(range(len(prompts)), key=lambda n: -len(prompts[n]))
        start = self.start(common) if common else None
        common = common if start else []
        for at in range(0, len(order), self.batch_size):
            chosen = order[at : at + self.batch_size]
            yield chosen, self.prefill([prompts[n] for n in chosen], common, start)

    def going(self) -> Going:
        """Rows that are written together, none so far."""
        return Together(self.read) if self.together else Each(self.read)

    @cached_property
    def together(self) -> bool:
        """Whether rows may share a memory of ours, as they may where a model asks our attention and keeps nothing but
        keys and values."""
        from ..methods._depths import Routed

        ours = getattr(self.model.config, "_attn_implementation", None) in OURS.values()
        if not ours or any(isinstance(module, Routed) for module in self.model.modules()):
            return False  # blocks that choose tokens look into the cache themselves
        words = self.model.config.get_text_config().vocab_size
        prompts = [self.begun([n % words for n in span]) for span in (range(5, 9), range(20, 22))]
        with reading(self.model):
            try:
                return alike(self.prefill(prompts, []), self.read, partial(same, computed=self.model.dtype))
            except (Unsuited, TypeError, ValueError, RuntimeError, IndexError, AttributeError):
                return False  # what models raise that want more of a cache, or less of a mask

    def start(self, common: Ids):
        """The model's memory of what all prompts begin with; None where tokens that pad, which would stand behind it,
        count: in a window, or for a state."""
        place = torch.arange(len(common), device=self.device).unsqueeze(0)
        cache = self.read(torch.tensor([common], device=self.device), place, logits_to_keep=1).past_key_values
        return cache if all(type(layer) is DynamicLayer for layer in cache.layers) else None

    def prefill(self, prompts: Sequence[Ids], common: Ids, start=None, **seen: Tensor) -> Prefilled:
        """Read prompts, filled up on the left, after what they have in common; a single one with what is seen in it."""
        rest = [prompt[len(common) :] for prompt in prompts]
        width = max(map(len, rest))
        ids = torch.tensor([[0] * (width - len(row)) + row for row in rest], device=self.device)
        there = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rest], device=self.device)
        attend = torch.cat([there.new_ones(len(rest), len(common)), there], 1)
        place = (attend.cumsum(-1) - 1).clamp(min=0)[:, len(common) :]
        cache = deepcopy(start)
        if cache is not None:
            cache.reorder_cache(torch.zeros(len(rest), dtype=torch.long, device=self.device))
        images = {name: value.to(self.device) for name, value in seen.items()}
        out = self.read(ids, place, attention_mask=attend, past_key_values=cache, logits_to_keep=1, **images)
        return Prefilled(out.past_key_values, attend, attend.sum(-1), out.logits[:, -1].float())

    def at_once(self, ids: Ids, **seen: Tensor) -> Tensor:
        """[T, V] what the model says behind every token, which it gives their places itself."""
        given = torch.tensor([ids], device=self.device)
        return self.model(input_ids=given, attention_mask=torch.ones_like(given), **seen).logits[0].float()

    def steps(self, read: Prefilled, most: int, pick) -> Iterator[list[tuple[int, int]]]:
        """The next token of each row that goes on, with the row's number, until all have ended or `most` are written.
        Who ends says nothing more, and leaves."""
        ends, rows = self.stops(), list(range(len(read.place)))
        for left in reversed(range(most)):
            token = pick(read.logits)
            said = token.tolist()
            stays = [at for at, one in enumerate(said) if one not in ends]
            yield [(rows[at], said[at]) for at in stays]
            if not stays or not left:
                return
            if len(stays) < len(rows):
                read, token, rows = read.kept(stays), token[stays], [rows[at] for at in stays]
            read = read.after(token, self.read)


def positions(config) -> int | None:
    """How many tokens a model knows places for, by its config; None where it names no number."""
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def greedy(logits: Tensor) -> Tensor:
    return logits.argmax(-1)


def sampling(temperature: float):
    def pick(logits: Tensor) -> Tensor:
        return torch.multinomial((logits / temperature).softmax(-1), 1).squeeze(-1)

    return pick


@contextmanager
def reading(model) -> Iterator[None]:
    """Within it the model only reads: no gradient, no dropout."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)
