"""torch.compile of a model's blocks, one by one: alike as they are, they are translated once, for any length of row."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

from ..data.batch import Layout
from ..errors import BadEnvironment
from ..methods.base import largest_list
from .policy import Policy


def compile_blocks(policy: Policy, layout: Layout) -> float:
    """Have the blocks translated for training; measuring stays as it is. The seconds that it took.

    Raises BadEnvironment where nothing can be translated, as without a C++ compiler.
    """
    from torch._dynamo.exc import BackendCompilerFailed

    began = time.perf_counter()
    for block in largest_list(policy.trunk):
        block.forward = either(block.forward)
    random = torch.get_rng_state()
    try:
        found = policy.states(layout(policy.samples).to(policy.device)).sum()
        torch.autograd.grad(found, list(policy.trainable().values()), allow_unused=True)
    except BackendCompilerFailed as error:
        why = str(error.inner_exception).strip().split("\n")[0]
        raise BadEnvironment(f"train.torch_compile: this machine cannot compile ({why}); set it to false") from None
    torch.set_rng_state(random)
    return time.perf_counter() - began


def either(plain):
    """A forward that is translated where a backward pass may follow, and as it was elsewhere."""
    translated = torch.compile(plain, dynamic=True)

    def forward(*args, **kwargs):
        return (translated if torch.is_grad_enabled() and TRANSLATE.get() else plain)(*args, **kwargs)

    return forward


TRANSLATE: ContextVar[bool] = ContextVar("translate", default=True)


@contextmanager
def untranslated() -> Iterator[None]:
    """Within it, blocks compute as they were written."""
    token = TRANSLATE.set(False)
    try:
        yield
    finally:
        TRANSLATE.reset(token)
