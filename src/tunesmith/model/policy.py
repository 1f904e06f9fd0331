"""The one forward pass: whatever an objective looks at is read here.

Letters of shapes: R rows, T tokens in a row, N sequences, M tokens to be learnt, C classes, H width of the model.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..data.batch import Batch, Layout, pack, pad, share
from ..data.rendering.tokens import Tokens
from ..methods.base import largest_list
from ..objectives.base import LogProbs
from .attention import as_before, keep_apart
from .lean import remaking
from .linear_loss import WATCHED, After, linear_divergence, linear_loss
from .noise import stirred
from .rounding import same
from .soft import Begun, Soft, begin, soft

if TYPE_CHECKING:
    from .teacher import Teacher


class Policy:
    """A model that learns, seen through what objectives look at."""

    def __init__(self, model) -> None:
        self.model = model
        self.bare = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.trunk: nn.Module = getattr(self.bare, self.bare.base_model_prefix)
        self.apart = keep_apart(self.bare)
        self.first = 0
        """The position of a sequence's first token."""
        self.temperature = 1.0
        """What logits are divided by, as those are that answers are drawn from."""
        self.value_head: nn.Linear | None = None
        self.critic: Policy | None = None
        """Whose states the critic's head reads, where these are not the policy's own."""
        self.seen: dict[int, Tensor] | None = None
        self.watching = False
        """Whether this look is to see the entropy too, which `logp` then leaves here."""
        self.surprise: Tensor | None = None
        self.noise = 0.0
        """How much the embeddings are stirred in training (NEFTune)."""
        self.teacher: Teacher | None = None
        """What it learns from, where the objective asks how far the two are apart."""
        self.saving: Callable[[], AbstractContextManager] = remaking
        """How that is kept which the backward pass needs."""

    def look(self, batch: Batch, names: Iterable[str]) -> dict:
        """By name, what an objective wants to see: what is known already, or what the model makes of the batch. What it
        said of old is what it says now, where that is not known."""
        names, found = tuple(names), {}
        self.seen, self.watching = {}, "entropy" in names
        try:
            for name in names:
                if name in batch.known:
                    found[name] = batch.known[name]
                else:
                    found[name] = found["logp"].token.detach() if name == "old" else getattr(self, name)(batch)
            return found
        finally:
            self.seen, self.watching, self.surprise = None, False, None

    def value(self, batch: Batch) -> Tensor:
        """[M] what a critic expects, in the position that predicts each token to be learnt."""
        assert self.value_head is not None
        seen = self.critic or self
        seen.model.train(self.model.training)
        seen.saving = self.saving
        return self.value_head(seen.states(batch)[:, :-1][batch.learn[:, 1:]].float()).squeeze(-1)

    def add_value_head(self, apart: bool = False) -> None:
        """Put a critic beside the language model's head, which expects nothing at first. `apart` gives it a trunk of
        its own: what learns in the model is there a second time, what does not is shared."""
        if apart:
            from .critic import twin

            self.critic = twin(self)
        width = self.bare.config.get_text_config().hidden_size
        self.value_head = nn.Linear(width, 1, device=self.device)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)

    def logp(self, batch: Batch) -> LogProbs:
        """The log-probability of every token to be learnt, in the order of the flattened rows."""
        learn, next_ids = batch.learn[:, 1:], batch.ids[:, 1:]
        if self.bends_logits:
            begun = self.begun(batch)
            logits = self.run(begun.batch).logits[:, begun.at][:, :-1][learn].float() / self.temperature
            chances = logits.log_softmax(-1)
            token = chances.gather(-1, next_ids[learn].unsqueeze(-1)).squeeze(-1)
            self.surprise = -(chances.exp() * chances).sum(-1).detach() if self.watching else None
        else:
            states = self.states(batch)[:, :-1][learn]  # [M, H] only these reach the head
            wants = ("logp", WATCHED) if self.watching else ("logp",)
            found = linear_loss(states, self.head, next_ids[learn], wants, self.after_head)
            token, self.surprise = found["logp"], found.get(WATCHED)
        weight = None if batch.weight is None else batch.weight[:, 1:][learn]
        return LogProbs(token, batch.owner[:, 1:][learn], batch.answers, weight)

    def entropy(self, batch: Batch) -> Tensor:
        """[M] how open it is what comes, at every token to be learnt; to be watched alone, and made with `logp`."""
        if self.surprise is None:
            self.logp(batch)
        assert self.surprise is not None
        return self.surprise

    def reference(self, batch: Batch) -> LogProbs:
        """What `logp` was before anything was learnt, which the batch brings along."""
        if batch.reference is None:
            raise LookupError("the batch brings no log-probabilities of a reference")
        weight = None if batch.weight is None else batch.weight[:, 1:][batch.learn[:, 1:]]
        return LogProbs(batch.reference, batch.owner[:, 1:][batch.learn[:, 1:]], batch.answers, weight)

    def divergence(self, batch: Batch) -> LogProbs:
        """How far from what the teacher would say, at every token to be learnt, the model is."""
        if self.teacher is None:
            raise LookupError("there is no teacher")
        states, head, after = self.speaking(batch)
        with torch.no_grad():
            theirs, *how = self.teacher.policy.speaking(batch)
        apart = linear_divergence(states, head, theirs, self.teacher.judge(*how), after)
        weight = None if batch.weight is None else batch.weight[:, 1:][batch.learn[:, 1:]]
        return LogProbs(apart, batch.owner[:, 1:][batch.learn[:, 1:]], batch.answers, weight)

    def speaking(self, batch: Batch) -> tuple[Tensor, nn.Module, After]:
        """[M, H] the states from which tokens to be learnt are told, the head that does, and what becomes of its
        output; of a model that makes its logits itself, these."""
        learn = batch.learn[:, 1:]
        if self.bends_logits:
            begun, after = self.begun(batch), After(temperature=self.temperature)
            return self.run(begun.batch).logits[:, begun.at][:, :-1][learn], nn.Identity(), after
        return self.states(batch)[:, :-1][learn], self.head, self.after_head

    def score(self, batch: Batch) -> Tensor:
        """[N, C] what the classification head makes of each sequence; in a causal model it reads the last token, those
        that pad left out."""
        head = getattr(self.bare, "score", None)
        if head is None:
            batch = self.begun(batch).batch
            with self.unpacked(batch):
                return self.run(batch).logits.float()
        return head(self.states(batch).flatten(0, 1)[batch.last(self.bare.config.pad_token_id)]).float()

    def states(self, batch: Batch) -> Tensor:
        """[R, T, H] the last hidden states, which the heads read; those of virtual tokens are left out.

        Within one look they are computed once, whatever reads them.
        """
        if self.seen is not None and id(batch) in self.seen:
            return self.seen[id(batch)]
        begun = self.begun(batch)
        states = self.run(begun.batch, self.trunk).last_hidden_state[:, begun.at]
        if self.seen is not None:
            self.seen[id(batch)] = states
        return states

    def begun(self, batch: Batch) -> Begun:
        """A batch with the virtual tokens of a soft prompt before every sequence, if there is one."""
        return begin(batch, self.soft.words if self.soft else [])

    def run(self, batch: Batch, model: nn.Module | None = None):
        """The forward pass. Packed rows are told apart by the lengths of their sequences, padded ones by a mask."""
        takes, prompt = inspect.signature(self.bare.forward).parameters, self.soft
        inputs: dict = {"input_ids": batch.ids, "attention_mask": batch.attend}
        if batch.attend is None:
            laid = torch.stack([batch.lengths.new_tensor(batch.borrowed or [0] * batch.answers), batch.lengths])
            inputs["attention_mask"] = laid[None, None] if self.apart else None
            inputs["position_ids"] = batch.place + self.first
            if getattr(self.bare.config, "type_vocab_size", 0):  # else they would be as many as positions, not tokens
                inputs["token_type_ids"] = torch.zeros_like(batch.ids)
        if "use_cache" in takes:
            inputs["use_cache"] = False
        with self.saving(), self.stirred(batch):
            if prompt:
                inputs = prompt.given({"position_ids": batch.place, **inputs} if prompt.prefix else inputs)
                model = model or self.bare
            return (model or self.model)(**inputs)

    @property
    def soft(self) -> Soft | None:
        return soft(self.model)

    def stirred(self, batch: Batch):
        """Within it, embeddings are stirred, if they are to be in training. Evaluation sees them as they are."""
        if not (self.noise and self.model.training):
            return nullcontext()
        own = batch.lengths - (len(self.soft.words) if self.soft else 0)
        return stirred(self.bare.get_input_embeddings(), self.noise, own[batch.owner])

    @contextmanager
    def unpacked(self, batch: Batch) -> Iterator[None]:
        """Within it, what comes behind the last block sees a row for each sequence, as heads of encoders expect."""

        def spread(module, inputs, output):
            states = output[0] if isinstance(output, tuple) else output
            rows = states.new_zeros(batch.answers, int(batch.place.max()) + 1, states.shape[-1])
            rows = rows.index_put((batch.owner[0], batch.place[0]), states[0])
            return (rows, *output[1:]) if isinstance(output, tuple) else rows

        if batch.attend is not None:
            yield
            return
        hook = largest_list(self.trunk)[-1].register_forward_hook(spread)
        try:
            yield
        finally:
            hook.remove()

    def until(self, batch: Batch, block: nn.Module):
        """What comes out of a block; what stands behind it is not computed."""

        def stop(module, inputs, output):
            raise Reached(output)

        hook = block.register_forward_hook(stop)
        try:
            self.states(batch)
        except Reached as reached:
            return reached.args[0]
        finally:
            hook.remove()
        raise LookupError(f"{type(block).__name__} is not part of the forward pass")

    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters that learn, by name; a critic's among them."""
        learning = {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}
        critic = dict(self.value_head.named_parameters(prefix="value_head")) if self.value_head else {}
        if self.critic:
            mine, theirs = {id(weight) for weight in learning.values()}, self.critic.trainable().items()
            critic |= {f"critic.{name}": weight for name, weight in theirs if id(weight) not in mine}
        return learning | critic

    @property
    def head(self) -> nn.Module:
        return self.bare.get_output_embeddings()

    @property
    def after_head(self) -> After:
        """What becomes of the head's output on its way to logits."""
        config = self.bare.config.get_text_config()
        scale = getattr(config, "logit_scale", None) or getattr(config, "lm_head_multiplier", None) or 1.0
        divided = getattr(config, "logits_scaling", None) or 1.0
        return After(scale / divided, getattr(config, "final_logit_softcapping", None), self.temperature)

    @cached_property
    def bends_logits(self) -> bool:
        """Whether logits are more than a head over the last states, so that the model must make them all itself."""
        if not callable(self.head):
            return True
        alone = pad(self.samples[:1]).to(self.device)
        with self.trying():
            begun = self.begun(alone)
            logits = self.run(begun.batch).logits[:, begun.at][0, :-1].float() / self.temperature
            states, words = self.states(alone)[0, :-1], alone.ids[0, 1:]
            expected = logits.log_softmax(-1).gather(-1, words.unsqueeze(-1)).squeeze(-1)
            found = linear_loss(states, self.head, words, after=self.after_head)["logp"]
            return not same(found, expected, self.bare.dtype)

    def layout(self) -> Layout:
        """How batches are laid out for this model: packed, what all begin with once, or where it mixes up, padded.

        Found out by trying, not from a list of names. What drops at random shares nothing: each sequence draws anew.
        A teacher sees the same batches.
        """
        taught = self.teacher.policy.layout() if self.teacher else share
        if taught is share and not self.drops() and self.tells_apart(share):
            return share
        if taught is not pad and self.tells_apart(pack):
            return pack
        if taught is not pad and self.apart and not self.soft:  # by the lengths it does not; by its own mask it may
            self.apart = False
            as_before(self.bare)
            return pack if self.tells_apart(pack) else pad
        return pad

    def drops(self) -> bool:
        """Whether the model, as it is now, gives other states the second time."""
        batch = pad(self.samples[:1]).to(self.device)
        with torch.no_grad():
            return not torch.equal(*(self.outcome(batch) for _ in range(2)))

    def tells_apart(self, layout: Layout) -> bool:
        """Whether sequences laid out like this come to what each comes to alone."""
        batch = layout(self.samples).to(self.device)
        if batch.borrowed and not self.apart:
            return False
        with self.trying():
            alone = [self.outcome(pad([sample]).to(self.device)) for sample in self.samples]
            borrowed = batch.borrowed or [0] * len(alone)
            expected = torch.cat([one[first:] for one, first in zip(alone, borrowed, strict=True)])
            for first_place in (0, (self.bare.config.get_text_config().pad_token_id or 0) + 1):  # RoBERTa's begin there
                self.first = first_place
                try:
                    if same(self.outcome(batch), expected):
                        return True
                except (TypeError, ValueError, RuntimeError, IndexError):  # what models raise who know no packed rows
                    continue
        self.first = 0
        return False

    def outcome(self, batch: Batch) -> Tensor:
        """What the model makes of a batch: states, a row a token, or an encoder's classes, a row a sequence."""
        encoder = not hasattr(self.bare, "score") and not callable(self.head)
        return self.score(batch) if encoder else self.states(batch).flatten(0, 1)

    def sample(self) -> Tensor:
        """What the model makes of a short sequence."""
        with self.trying():
            return self.outcome(pad(self.samples[:1]).to(self.device))

    @property
    def samples(self) -> list[Tokens]:
        """Two short sequences to try things with; three tokens are what both begin with."""
        words = self.bare.config.get_text_config().vocab_size
        spans = ([*range(5, 13)], [*range(5, 8), *range(20, 26)])
        return [Tokens([n % words for n in span], [at > 3 for at in range(len(span))]) for span in spans]

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @contextmanager
    def trying(self) -> Iterator[None]:
        """Within it, the model answers the same each time, and learns nothing."""
        training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.model.train(training)


class Reached(Exception):
    """Carries a block's output out of the model."""
