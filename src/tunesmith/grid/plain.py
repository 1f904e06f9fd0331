"""A second way to a step's loss and gradient: a plain model, under plain PEFT, one sequence at a time, by autograd.

Nothing here goes through `Policy`, the loop, packed rows or layers of ours: what both ways come to is right, or the
same mistake was made twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from inspect import signature
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data.batch import pad
from ..data.rendering.tokens import Tokens
from ..model.beside import HEAD
from ..model.load import hushed, load_model
from ..objectives.base import LogProbs, Objective
from ..run import Run


def plain_model(run: Run, tuned: Any, base: Path, outputs: tuple[str, ...], folder: Path) -> Any:
    """The model anew, under PEFT's own layers, or as transformers loads what a method without PEFT has made of it."""
    model, _ = load_model(base, run.model.precision, outputs)
    if hasattr(tuned, "peft_config"):
        from peft import get_peft_model

        config = tuned.peft_config["default"]
        with hushed():
            model = get_peft_model(model, type(config)(**config.to_dict()))  # without the layers that are ours
    elif names(model) != names(tuned):
        run.method.save(tuned, folder)
        model, _ = load_model(folder, run.model.precision, outputs)
    model.config.pad_token_id = None  # a row by itself ends where it ends
    if "value" in run.objective.looks():
        model.value_head = critic(model.config.get_text_config().hidden_size)
    return model.train()


def critic(width: int) -> torch.nn.Linear:
    """A head that expects nothing at first."""
    head = torch.nn.Linear(width, 1)
    for weight in head.parameters():
        torch.nn.init.zeros_(weight)
    return head


def teacher_of(run: Run) -> Any:
    """The model to learn from, where the objective names one."""
    name = run.objective.models().get("objective.teacher")
    return load_model(Path(name))[0].eval().requires_grad_(False) if name else None


def names(model: Any) -> set[str]:
    return {name for name, _ in model.named_parameters()}


def take_over(plain: Any, learning: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give a plain model the weights that learn, by name; they, in it."""
    there = dict(plain.named_parameters())
    with torch.no_grad():
        for name, weight in learning.items():
            there[name].copy_(weight)
    return {name: there[name].requires_grad_(True) for name in learning}


@dataclass
class Given:
    """Sequences, and what is known of them before anything is learnt."""

    sequences: Sequence[Tokens]
    known: dict[str, Any] = field(default_factory=dict)
    """By name, what an objective looks at that is not looked at anew."""
    strangers: Given | None = None
    teacher: Any = None

    def looks(self, plain: Any, objective: Objective) -> dict[str, Any]:
        """What an objective looks at; what it said before is known."""
        with once(plain, len(self.sequences)):
            return {
                name: self.known[name] if name in self.known else self.look(name, plain, objective)
                for name in objective.looks()
            }

    def look(self, name: str, plain: Any, objective: Objective) -> Any:
        if name == "divergence":
            return divergence(plain, self.teacher, self.sequences, objective)
        return LOOKS[name](plain, self.sequences)


@contextmanager
def once(plain: Any, sequences: int) -> Iterator[None]:
    """Within it, a model goes through each of so many sequences once, however many looks there are at what it says of
    them, each from the first to the last: what a model adds to its slopes by itself is added once."""
    through, calls, made = plain.forward, count(), {}

    def forward(*rows: Any, **given: Any) -> Any:
        number = next(calls) % sequences
        if number not in made:
            made[number] = through(*rows, **(given | {"output_hidden_states": True}))
        return made[number]

    plain.forward = forward
    try:
        yield
    finally:
        plain.forward = through


@contextmanager
def as_asked(plain: Any) -> Iterator[None]:
    """Within it, a model answers as it does when nobody trains it."""
    plain.eval()
    with torch.no_grad():
        yield
    plain.train()


def look_back(plain: Any, run: Run, sequences: Sequence[Tokens], strangers: Sequence[Tokens] | None) -> Given:
    """Find out what an objective wants to know beforehand: what the model says that nothing was put beside yet."""
    given = Given(sequences, teacher=teacher_of(run))
    off = run.method.detachable and hasattr(plain, "disable_adapter")
    if "reference" in run.objective.looks():
        with as_asked(plain), plain.disable_adapter() if off else nullcontext():
            given.known["reference"] = logp(plain, sequences)
    if strangers is not None:
        given.strangers = look_back(plain, run, strangers, None)
    return given


def gradient(
    plain: Any, objective: Objective, given: Given, learning: dict[str, Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """A step's loss and its gradient by each weight that learns."""
    first: dict[str, Any] = {}
    if given.strangers:
        with as_asked(plain):
            others = given.strangers
            wanted, looks = signature(objective.measure).parameters, others.looks(plain, objective)
            measured = objective.measure(
                pad(others.sequences), **{name: looks[name] for name in looks if name in wanted}
            )
        first["baseline"] = measured.mean()
    if objective.asks("whole"):
        amounts = [objective.amount(tokens) for tokens in given.sequences]
        first["whole"] = {name: sum(much for one, much in amounts if one == name) for name, _ in amounts}
    judged = objective.loss(pad(given.sequences), **given.looks(plain, objective), **first)
    whole = torch.as_tensor(judged.sum)  # its slope is divided, for a model may add sums of its own to it
    slopes = torch.autograd.grad(whole, list(learning.values()), allow_unused=True, materialize_grads=True)
    divided = (slope / judged.count for slope in slopes)
    return (whole / judged.count).detach(), dict(zip(learning, divided, strict=True))


def logits(plain: Any, tokens: Tokens) -> Tensor:
    """[T, words] what a model says of a sequence; of virtual tokens before it nothing."""
    ids = torch.tensor([tokens.ids])
    return plain(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0, -ids.shape[1] :].float()


def logp(plain: Any, sequences: Sequence[Tokens]) -> LogProbs:
    found, owners = [], []
    for number, tokens in enumerate(sequences):
        chances = logits(plain, tokens)[:-1].log_softmax(-1)
        said = chances.gather(-1, torch.tensor(tokens.ids[1:])[:, None])[:, 0]
        found.append(said[torch.tensor(tokens.learn[1:])])
        owners += [number] * len(found[-1])
    return LogProbs(torch.cat(found), torch.tensor(owners), len(sequences))


def entropy(plain: Any, sequences: Sequence[Tokens]) -> Tensor:
    """[M] that of what may be said, at each token that is learnt."""
    found = []
    for tokens in sequences:
        chances = logits(plain, tokens)[:-1][torch.tensor(tokens.learn[1:])].softmax(-1)
        found.append(torch.special.entr(chances).sum(-1).detach())
    return torch.cat(found)


def score(plain: Any, sequences: Sequence[Tokens]) -> Tensor:
    rows = [torch.tensor([tokens.ids]) for tokens in sequences]
    return torch.cat([classes(plain, row) for row in rows])


def classes(plain: Any, row: Tensor) -> Tensor:
    """[1, C] what a classifier says of a row, or a head beside a language model's of its last states."""
    bare, given = base_of(plain), {"input_ids": row, "attention_mask": torch.ones_like(row)}
    if not (hasattr(bare, HEAD) and bare.get_output_embeddings()):
        return plain(**given).logits.float()
    states = plain(**given, use_cache=False, output_hidden_states=True).hidden_states[-1]
    return getattr(bare, HEAD)(states[:, -1]).float()


def base_of(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def value(plain: Any, sequences: Sequence[Tokens]) -> Tensor:
    """[M] what the critic expects where each token to be learnt is told."""
    found = []
    for tokens in sequences:
        ids = torch.tensor([tokens.ids])
        made = plain(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, output_hidden_states=True)
        states = made.hidden_states[-1][0, -ids.shape[1] :][:-1]
        found.append(plain.value_head(states[torch.tensor(tokens.learn[1:])].float())[:, 0])
    return torch.cat(found)


def divergence(plain: Any, teacher: Any, sequences: Sequence[Tokens], objective: Any) -> LogProbs:
    """[M] beta KL(p || m) + (1 - beta) KL(q || m) of the teacher's p and the model's q, m = beta p + (1 - beta) q: by
    chances, in float64, where the model's own way has logarithms."""
    found, owners, beta, heat = [], [], objective.beta, objective.temperature
    for number, tokens in enumerate(sequences):
        learn = torch.tensor(tokens.learn[1:])
        q = (logits(plain, tokens)[:-1][learn].double() / heat).softmax(-1)
        with torch.no_grad():
            p = (logits(teacher, tokens)[:-1][learn].double() / heat).softmax(-1)
        m = beta * p + (1 - beta) * q
        apart = beta * (p * (p / m).log()).sum(-1) + (1 - beta) * (q * (q / m).log()).sum(-1)
        found.append(apart.float())
        owners += [number] * len(apart)
    return LogProbs(torch.cat(found), torch.tensor(owners), len(sequences))


LOOKS: dict[str, Callable[[Any, Sequence[Tokens]], Any]] = {
    "logp": logp,
    "score": score,
    "entropy": entropy,
    "value": value,
}
"""What objectives look at, beside what is known and what another model says."""
