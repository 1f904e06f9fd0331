"""The one forward pass: whatever an objective looks at is read here.

Letters of shapes: R rows, T tokens in a row, N sequences, M tokens to be learnt, K positions that predict one of
them in some row, V words, C classes, H width of the model.
"""

from __future__ import annotations

import inspect

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ..data.batch import Batch, Layout, pack, pad
from ..data.render import Tokens
from ..objectives.base import LogProbs


class Policy:
    """A model that learns, seen through what objectives look at."""

    def __init__(self, model) -> None:
        self.model = model
        self.bare = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.keeps = "logits_to_keep" in inspect.signature(self.bare.forward).parameters

    def look(self, batch: Batch, names: tuple[str, ...]) -> dict:
        return {name: getattr(self, name)(batch) for name in names}

    def logp(self, batch: Batch) -> LogProbs:
        """The log-probability of every token to be learnt, in the order of the flattened rows."""
        learn = batch.learn[:, 1:]
        kept = learn.any(0).nonzero().squeeze(-1)  # [K] only these reach the head
        logits = self.run(batch, logits_to_keep=kept).logits if self.keeps else self.run(batch).logits[:, kept]
        if len(logits) > 1:
            logits = logits[learn[:, kept]]
        token = -cross_entropy(logits.view(-1, logits.shape[-1]).float(), batch.ids[:, 1:][learn], reduction="none")
        return LogProbs(token, batch.owner[:, 1:][learn], batch.answers)

    def score(self, batch: Batch) -> Tensor:
        """[N, C] what the classification head makes of each sequence; in a causal model it reads the last token."""
        head = getattr(self.bare, "score", None)
        if head is None:
            return self.run(batch).logits.float()
        states = self.run(batch, getattr(self.bare, self.bare.base_model_prefix)).last_hidden_state  # [R, T, H]
        return head(states.flatten(0, 1)[batch.last]).float()

    def run(self, batch: Batch, model: nn.Module | None = None, **also):
        """The forward pass. Packed rows are told apart by their positions, padded ones by their mask."""
        inputs: dict = {"input_ids": batch.ids, "attention_mask": batch.attend} | also
        if batch.attend is None:
            inputs["position_ids"] = batch.place
        if "use_cache" in inspect.signature(self.bare.forward).parameters:
            inputs["use_cache"] = False
        return (model or self.model)(**inputs)

    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters that learn, by name."""
        return {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}

    @torch.no_grad()
    def packs(self) -> bool:
        """Whether this model keeps packed sequences apart: found out by trying, not from a list of names."""
        training, device = self.model.training, next(self.model.parameters()).device
        words = self.bare.config.get_text_config().vocab_size
        first = Tokens([n % words for n in range(5, 13)], [True] * 8)
        second = Tokens([n % words for n in range(20, 26)], [True] * 6)
        self.model.eval()
        try:
            alone, together = pack([second]).to(device), pack([first, second]).to(device)
            expected, got = self.states(alone), self.states(together)[-6:]
        except (TypeError, ValueError):
            return False
        finally:
            self.model.train(training)
        slack = 1e-4 if expected.dtype == torch.float32 else 2e-2  # rounding, as a share of the largest state
        return bool((expected - got).abs().max() <= slack * expected.abs().max())

    def states(self, batch: Batch) -> Tensor:
        """[T, H] the last hidden states of a single row."""
        return self.run(batch, getattr(self.bare, self.bare.base_model_prefix)).last_hidden_state[0]

    def layout(self) -> Layout:
        """How batches are laid out for this model: packed, or where it mixes packed sequences up, padded."""
        return pack if self.packs() else pad
