"""An update that begins at what a layer's inputs vary along most (EVA, Paischer et al. 2024, arXiv:2410.07170).

PEFT finds the directions, over our batches and our forward pass, and shares the ranks out. What is left is plain LoRA.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from ..errors import RecipeError

MOST = 1000
"""Passes after which directions that still turn are taken for ones that will not settle."""


class Passes:
    """The forward pass, as PEFT calls it, counted."""

    def __init__(self, forward: Callable[[Any], Any]) -> None:
        self.forward, self.count = forward, 0

    def __call__(self, model, batch) -> None:
        self.count += 1
        if self.count > MOST:
            raise RecipeError(
                f"method.init_lora_weights: eva's directions have not settled after {MOST} batches; take default"
            )
        self.forward(batch)


def begin_at_variance(tuned, rows: Callable[[int], Sequence[Any]], forward: Callable[[Any], Any], rho: float) -> str:
    """Set the first matrix of every update to the directions that explain most of its inputs, and ranks to how many of
    the best directions of all are a layer's, at most `rho` times what it had. Says what the ranks came to."""
    from peft import EvaConfig
    from peft.tuners.lora.eva import get_eva_state_dict, initialize_lora_eva_weights

    config, passes = tuned.peft_config["default"], Passes(forward)
    wanted = directions(max([config.r, *config.rank_pattern.values()]), rho)
    batches = rows(wanted)
    if not batches or min(map(tokens, batches)) < wanted:
        raise RecipeError(
            f"method.init_lora_weights: eva looks for directions in at least {wanted} tokens, and the training rows"
            " have fewer; take default, or a smaller method.r"
        )
    config.init_lora_weights, config.eva_config = "eva", EvaConfig(rho=rho)
    with quietly():
        found = get_eva_state_dict(
            tuned,
            batches,
            forward_fn=passes,
            prepare_model_inputs_fn=lambda batch, config: batch.attend,
            prepare_layer_inputs_fn=real,
            show_progress_bar=False,
        )
        ranks = sorted(len(one) for one in found.values())
        initialize_lora_eva_weights(tuned, eva_state_dict=found)
    config.init_lora_weights, config.eva_config = True, None  # the result is a plain LoRA
    return f"eva: ranks from {ranks[0]} to {ranks[-1]} by what explains the inputs, after {passes.count} batches"


def directions(rank: int, rho: float) -> int:
    """How many directions PEFT looks for so as to keep the largest `rank * rho`."""
    return 2 * round(rank * rho)


def tokens(batch: Any) -> int:
    return batch.ids.numel() if batch.attend is None else int(batch.attend.sum())


def real(inputs: Any, attend: Tensor | None, name: str) -> Tensor:
    """[M, I] a layer's inputs, without those of padding."""
    [states] = inputs
    rows = states.flatten(0, -2)
    if attend is None or len(rows) != attend.numel():
        return rows
    return rows[attend.flatten().bool()]


@contextmanager
def quietly() -> Iterator[None]:
    """Within it, PEFT 0.21 does not warn of a batch that has moved to the device already."""
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Could not determine device", UserWarning)
        yield
