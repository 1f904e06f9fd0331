"""What a policy was before it learnt anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import nn

from ..methods.base import Method
from ..model.policy import Policy


class Beginning:
    """What the policy was before it learnt anything, at any later time.

    An adapter is switched off; of what cannot be, the weights that learn are kept a second time.
    """

    def __init__(self, policy: Policy, method: Method) -> None:
        self.policy = policy
        self.off = method.detachable and method.leaves_base and not method.adapter
        self.weights = {} if self.off else {name: one.detach().clone() for name, one in self.learning().items()}

    def learning(self) -> dict[str, nn.Parameter]:
        """What of the policy learns; the reference has no critic."""
        return {n: one for n, one in self.policy.trainable().items() if not n.startswith(("critic.", "value_head."))}

    @contextmanager
    def there(self) -> Iterator[None]:
        """Within it, the policy is what it was."""
        with self.policy.model.disable_adapter() if self.off else nullcontext():
            self.swap()
            try:
                yield
            finally:
                self.swap()

    @torch.no_grad()
    def swap(self) -> None:
        now = self.policy.trainable() if self.weights else {}
        for name, then in self.weights.items():
            held = now[name].detach().clone()
            now[name].copy_(then)
            then.copy_(held)


class Reread(Beginning):
    """The same of a model all of whose weights learn, and whose objective looks at no reference: they are read again
    from its folder where they are asked for, and held a second time only that long."""

    def __init__(self, policy: Policy, read: Callable[[], nn.Module]) -> None:
        self.policy, self.read, self.off, self.weights = policy, read, False, {}

    @contextmanager
    def there(self) -> Iterator[None]:
        began = dict(self.read().named_parameters())
        self.weights = {name: began[name].detach() for name in self.learning()}
        try:
            with super().there():
                yield
        finally:
            self.weights = {}
