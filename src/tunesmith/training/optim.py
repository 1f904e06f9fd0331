"""The optimizer and the schedule of its learning rate, by the names that TrainingArguments has."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..methods.base import Method
from ..run import Train

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LambdaLR


def optimizer(train: Train, weights: dict[str, nn.Parameter], method: Method) -> Optimizer:
    """The optimizer over the weights that learn, each at the rate that its method gives it; only matrices decay, as is
    the field's habit."""
    kinds: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, weight in weights.items():
        kinds.setdefault((method.rate(name), train.weight_decay if weight.ndim >= 2 else 0.0), []).append(weight)
    groups = [
        {"params": kinds[rate, decay], "lr": rate * train.learning_rate, "weight_decay": decay}
        for rate, decay in sorted(kinds, key=lambda kind: (kind[0] != 1.0, -kind[1]))  # the usual rate is what is shown
    ]
    if train.optim == "sgd":
        return torch.optim.SGD(groups, lr=train.learning_rate)
    return torch.optim.AdamW(
        groups,
        lr=train.learning_rate,
        betas=(train.adam_beta1, train.adam_beta2),
        eps=train.adam_epsilon,
        fused=train.optim == "adamw_torch_fused",
    )


def schedule(train: Train, over: Optimizer, total: int) -> LambdaLR:
    """The learning rate of each step; warmup_steps below 1 is a share of all steps."""
    from transformers import get_scheduler

    warmup = math.ceil(train.warmup_steps * total) if train.warmup_steps < 1 else int(train.warmup_steps)
    made: Any = get_scheduler(train.lr_scheduler_type, over, num_warmup_steps=warmup, num_training_steps=total)
    return made
