"""A second way to a step's loss and gradient: a plain model, under plain PEFT, one sequence at a time, by autograd.

Nothing here goes through `Policy`, the loop, packed rows or layers of ours: what both ways come to is right, or the
same mistake was made twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data.batch import pad
from ..data.rendering.tokens import Tokens
from ..model.load import hushed, load_model
from ..objectives.base import LogProbs, Objective
from ..run import Run


def plain_model(run: Run, tuned: Any, base: Path, labels: tuple[str, ...], folder: Path) -> Any:
    """The model anew, under PEFT's own layers, or as transformers loads what a method without PEFT has made of it."""
    model, _ = load_model(base, run.model.precision, labels)
    if hasattr(tuned, "peft_config"):
        from peft import get_peft_model

        config = tuned.peft_config["default"]
        with hushed():
            model = get_peft_model(model, type(config)(**config.to_dict()))  # without the layers that are ours
    elif names(model) != names(tuned):
        run.method.save(tuned, folder)
        model, _ = load_model(folder, run.model.precision, labels)
    model.config.pad_token_id = None  # a row by itself ends where it ends
    return model.train()


def names(model: Any) -> set[str]:
    return {name for name, _ in model.named_parameters()}


def take_over(plain: Any, learning: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give a plain model the weights that learn, by name; they, in it."""
    there = dict(plain.named_parameters())
    with torch.no_grad():
        for name, weight in learning.items():
            there[name].copy_(weight)
    return {name: there[name].requires_grad_(True) for name in learning}


def gradient(
    plain: Any, objective: Objective, sequences: Sequence[Tokens], learning: dict[str, Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """A step's loss and its gradient by each weight that learns."""
    looks = {name: LOOKS[name](plain, sequences) for name in objective.looks()}
    judged = objective.loss(pad(sequences), **looks)
    loss = torch.as_tensor(judged.sum) / judged.count
    slopes = torch.autograd.grad(loss, list(learning.values()), allow_unused=True, materialize_grads=True)
    return loss.detach(), dict(zip(learning, slopes, strict=True))


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


def score(plain: Any, sequences: Sequence[Tokens]) -> Tensor:
    rows = [torch.tensor([tokens.ids]) for tokens in sequences]
    return torch.cat([plain(input_ids=row, attention_mask=torch.ones_like(row)).logits.float() for row in rows])


LOOKS: dict[str, Callable[[Any, Sequence[Tokens]], Any]] = {"logp": logp, "score": score}
"""What objectives look at."""
