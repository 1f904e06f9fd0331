"""The optimizer over a model's weights, and the schedule of its learning rate."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from torch import nn

from ..methods.base import Method, largest_list
from ..model.policy import Policy
from ..optimizers.base import Learnt
from ..run import Train

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LambdaLR


def optimizer(train: Train, policy: Policy, method: Method) -> Optimizer:
    """The optimizer over the weights that learn, each at the rate that its method gives it; only matrices decay, as is
    the field's habit."""
    return train.optim.make(learnt(train, policy, method), train)


def learnt(train: Train, policy: Policy, method: Method) -> list[Learnt]:
    """Every weight that learns, and where in the model it stands."""
    outer, places = ends(policy), blocks(policy)
    found = []
    for name, weight in policy.trainable().items():
        inner = weight.ndim == 2 and id(weight) not in outer
        decay = train.weight_decay if weight.ndim >= 2 else 0.0
        rows = head_rows(policy, name, weight)
        found.append(Learnt(name, weight, method.rate(name), decay, inner, places.get(id(weight), 0), rows))
    return found


def ends(policy: Policy) -> set[int]:
    """The weights of embeddings and heads: what tells words or classes apart, not what is between them."""
    heads = [getattr(policy.bare, name, None) for name in ("score", "classifier")]
    heads.append(policy.head if callable(policy.head) else None)
    outer = [module for module in policy.model.modules() if isinstance(module, nn.Embedding)]
    outer += [inner for head in heads if isinstance(head, nn.Module) for inner in head.modules()]
    found = {id(weight) for module in outer for weight in module.parameters(recurse=False)}
    return found | (ends(policy.critic) if policy.critic else set())


def blocks(policy: Policy) -> dict[int, int]:
    """The number of the block that each weight is of: 0 before all of them, one more than their count behind them."""
    own = largest_list(policy.trunk)
    words = policy.bare.get_input_embeddings()
    found = {id(weight): len(own) + 1 for weight in policy.model.parameters()}
    found |= {id(weight): at for at, block in enumerate(own, 1) for weight in block.parameters()}
    found |= {id(weight): 0 for weight in words.parameters()}
    return (blocks(policy.critic) if policy.critic else {}) | found


QUERIES_AND_KEYS = ("q_proj", "k_proj", "query", "key", "q_lin", "k_lin", "wq", "wk")


def head_rows(policy: Policy, name: str, weight: nn.Parameter) -> int:
    """How many rows of a weight are one attention head, in queries and keys; elsewhere each stands for itself."""
    config = policy.bare.config.get_text_config()
    heads = getattr(config, "num_attention_heads", None)
    size = getattr(config, "head_dim", None) or (config.hidden_size // heads if heads else 1)
    whole = name.endswith(".weight") and name.split(".")[-2] in QUERIES_AND_KEYS and weight.ndim == 2
    return size if whole and len(weight) % size == 0 else 1


def schedule(train: Train, over: Optimizer, total: int) -> LambdaLR:
    """The learning rate of each step; warmup_steps below 1 is a share of all steps."""
    warmup = math.ceil(train.warmup_steps * total) if train.warmup_steps < 1 else int(train.warmup_steps)
    made: Any = train.lr_scheduler_type.make(over, warmup, total)
    return made
