"""Soft prompts: what a model finds before every sequence, and nobody said.

Virtual tokens (prompt tuning, p-tuning) stand in the rows as any others, by numbers above the vocabulary. Keys and
values (prefix tuning) go to each layer's attention beside its mask, so that rows may be packed and blocks computed
again; PEFT hands them over as a cache, which allows neither.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..data.batch import Batch
from ..errors import RecipeError
from .attention import keep_apart


class Soft:
    """What one model has before every sequence."""

    def __init__(self, model, config) -> None:
        self.model, self.bare = model, model.get_base_model()
        self.length: int = config.num_virtual_tokens
        self.prefix = config.peft_type == "PREFIX_TUNING"
        if self.prefix and not keep_apart(self.bare):
            raise RecipeError(
                f"method: prefix_tuning needs attention of torch's own, and {type(self.bare).__name__} has another;"
                " take prompt_tuning or lora"
            )

    @property
    def words(self) -> list[int]:
        """The virtual tokens that stand in the rows, by numbers that no word has."""
        known = self.bare.get_input_embeddings().num_embeddings
        return [] if self.prefix else list(range(known, known + self.length))

    def given(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """A model's inputs with the prompt in them."""
        if self.prefix:
            cache = self.model.get_prompt(1)
            keys = [(layer.keys, layer.values) for layer in cache.layers]
            return inputs | {"prefix": keys, "position_ids": inputs["position_ids"] + self.length}
        rest = {name: value for name, value in inputs.items() if name != "input_ids"}
        return rest | {"inputs_embeds": self.embed(inputs["input_ids"])}

    def embed(self, ids: Tensor) -> Tensor:
        """[R, T, H] the embeddings of words, virtual ones among them."""
        words = self.bare.get_input_embeddings()
        virtual = ids >= words.num_embeddings
        said = words(ids.masked_fill(virtual, 0))
        prompt = self.model.get_prompt(1)[0].to(said.dtype)
        return torch.where(virtual.unsqueeze(-1), prompt[(ids - words.num_embeddings).clamp(min=0)], said)


def soft(model) -> Soft | None:
    """A model's soft prompt, if it has one that is not switched off."""
    config = getattr(model, "peft_config", {}).get("default")
    return Soft(model, config) if config and config.is_prompt_learning and not model._adapters_disabled else None


class Begun(NamedTuple):
    """A batch whose sequences begin with virtual tokens, and where its own tokens lie in the rows."""

    batch: Batch
    at: Tensor | slice


def begin(batch: Batch, words: list[int]) -> Begun:
    """Put virtual tokens before every sequence; once, where several have their beginning in common."""
    if not words:
        return Begun(batch, slice(None))
    new = torch.tensor(words, device=batch.ids.device)
    return begin_packed(batch, new) if batch.attend is None else begin_padded(batch, new, batch.attend)


def begin_padded(batch: Batch, new: Tensor, attend: Tensor) -> Begun:
    rows, count = len(batch.ids), len(new)
    begun = replace(
        batch,
        weight=None,  # what is learnt is read from the batch itself
        ids=torch.cat([new.expand(rows, count), batch.ids], 1),
        learn=torch.cat([batch.learn.new_zeros(rows, count), batch.learn], 1),
        owner=torch.cat([batch.owner[:, :1].expand(rows, count), batch.owner], 1),
        place=torch.cat([torch.arange(count).to(new).expand(rows, count), batch.place + count], 1),
        attend=torch.cat([attend.new_ones(rows, count), attend], 1),
    )
    return Begun(begun, torch.arange(count, count + batch.ids.shape[1], device=new.device))


def begin_packed(batch: Batch, new: Tensor) -> Begun:
    count, [owner] = len(new), batch.owner
    leads = torch.tensor([not first for first in batch.borrowed] or [True] * batch.answers, device=new.device)
    leaders = leads.nonzero()[:, 0]  # whoever borrows has them with the rest
    times = len(leaders)
    at = torch.arange(len(owner)).to(new) + count * leads.cumsum(0)[owner]
    virtual = torch.ones(len(owner) + count * times, dtype=torch.bool, device=new.device)
    virtual[at] = False

    def row(own: Tensor, before: Tensor) -> Tensor:
        made = own.new_empty(1, len(virtual))
        made[0, at], made[0, virtual] = own[0], before.to(own.dtype)
        return made

    begun = replace(
        batch,
        weight=None,  # what is learnt is read from the batch itself
        ids=row(batch.ids, new.repeat(times)),
        learn=row(batch.learn, torch.zeros_like(new).repeat(times)),
        owner=row(batch.owner, leaders.repeat_interleave(count)),
        place=row(batch.place + count, torch.arange(count).to(new).repeat(times)),
        borrowed=tuple(first and first + count for first in batch.borrowed),
    )
    return Begun(begun, at)
