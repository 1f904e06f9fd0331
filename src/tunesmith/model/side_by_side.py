"""Adapters beside each other in one model: each row of a batch under its own, in one forward pass.

The base is multiplied once for all rows, as in Punica (arXiv:2310.18547) and S-LoRA (arXiv:2311.03285). What adapters
add is one product too: their matrices stand beside each other, and each row keeps what is its own adapter's, so that a
batch under eight adapters takes the operations of one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Linear
from torch.nn.functional import linear

from ..errors import CheckpointError
from .adapter import kind_of, under_adapter
from .load import hushed

SETS = 8
"""So many choices of adapters are kept put together."""


class Stack(NamedTuple):
    """What one layer gets from several adapters."""

    down: Tensor  # [S, in]
    up: Tensor  # [out, S], scaled
    ranks: tuple[tuple[str, int], ...]
    """Whose the S are."""


class Beside:
    """The adapters of one model, by names that only programs see."""

    def __init__(self, model) -> None:
        self.model = model
        self.tuned: Any = None
        """What PEFT makes of it, once there is an adapter."""
        self.names: dict[str, bool] = {}
        """Each, and whether rows under it may stand beside rows under others."""
        self.stacks: dict[tuple[int, tuple[str, ...]], Stack | None] = {}
        self.rows: tuple[str | None, ...] = ()
        self.among: tuple[str, ...] = ()
        self.masks: dict[tuple[tuple[str, int], ...], Tensor] = {}
        self.hooked: set[int] = set()

    def load(self, name: str, folder: Path) -> None:
        """Take in an adapter, every weight of which must fit; or leave the model as it was."""
        try:
            with hushed():
                self.tuned = under_adapter(self.tuned if self.tuned is not None else self.model, folder, name)
            self.refuse(name, folder)
        except BaseException:
            self.unload(name)
            raise
        self.tuned.eval()
        self.tuned.base_model.disable_adapter_layers()
        self.names[name] = self.mixes(name)
        self.hook()
        self.stacks.clear()

    def refuse(self, name: str, folder: Path) -> None:
        """Raises CheckpointError for what would change the base itself, or stand before its sequences."""
        config = self.tuned.peft_config[name]
        if config.is_prompt_learning:
            raise CheckpointError(
                f"{folder}: a soft prompt ({kind_of(config)}) stands before every sequence, beside other adapters or"
                " none; serve its run by itself"
            )
        if getattr(config, "bias", "none") != "none":
            raise CheckpointError(f"{folder}: bias: replaces biases of the base, for all; serve its run by itself")

    def unload(self, name: str) -> None:
        """Take an adapter out, with all that it needs."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        self.names.pop(name, None)
        self.stacks.clear()
        if self.tuned is None or not self.names:
            self.strip()
            return
        if name in self.tuned.peft_config:
            with hushed():
                self.tuned.delete_adapter(name)
        for module in self.model.modules():  # where PEFT stopped half-way, it has forgotten its name already
            if isinstance(module, BaseTunerLayer):
                module.delete_adapter(name)

    def strip(self) -> None:
        """The model without any layer of PEFT's."""
        from peft.tuners.tuners_utils import BaseTunerLayer
        from peft.utils import AuxiliaryTrainingWrapper

        for path, module in list(self.model.named_modules()):
            if isinstance(module, BaseTunerLayer):
                inner = module.get_base_layer()
            elif isinstance(module, AuxiliaryTrainingWrapper):
                inner = module.original_module
            else:
                continue
            above, _, last = path.rpartition(".")
            setattr(self.model.get_submodule(above), last, inner)
        self.tuned = None
        self.hooked.clear()
        if hasattr(self.model, "peft_config"):
            del self.model.peft_config

    def mixes(self, name: str) -> bool:
        """Whether an adapter is nothing but low-rank products beside linear layers."""
        from peft.tuners.lora import LoraLayer
        from peft.tuners.tuners_utils import BaseTunerLayer
        from peft.utils import AuxiliaryTrainingWrapper

        for module in self.model.modules():
            if isinstance(module, AuxiliaryTrainingWrapper) and name in getattr(module, "_adapters", ()):
                return False
            if not isinstance(module, BaseTunerLayer):
                continue
            if isinstance(module, LoraLayer):
                if name in module.lora_embedding_A or name in module.lora_variant:
                    return False
                if name in module.lora_A and not self.plain(module, name):
                    return False
            elif any(name in getattr(module, part, ()) for part in module.adapter_layer_names):
                return False
        return True

    def plain(self, layer: Any, name: str) -> bool:
        parts = layer.lora_A[name], layer.lora_B[name]
        return hasattr(layer.get_base_layer(), "in_features") and all(
            type(part) is Linear and part.bias is None for part in parts
        )

    def hook(self) -> None:
        """Have each layer add what the rows' adapters say."""
        from peft.tuners.lora import LoraLayer

        layers: list[Any] = [module for module in self.model.modules() if isinstance(module, LoraLayer)]
        for module in layers:
            if id(module) not in self.hooked:
                module.register_forward_hook(self.add)
                self.hooked.add(id(module))

    def add(self, layer: Any, given: tuple[Any, ...], out: Tensor) -> Tensor | None:
        stack = self.stack(layer) if self.among else None
        if stack is None:
            return None
        low = linear(given[0].to(stack.down.dtype), stack.down)
        if len(self.among) > 1 or None in self.rows:
            low = low * self.spread(self.mask(stack), low)
        return out + linear(low, stack.up).to(out.dtype)

    def stack(self, layer: Any) -> Stack | None:
        """The matrices of this pass's adapters, put together once."""
        key = id(layer), self.among
        if key not in self.stacks:
            if len({among for _, among in self.stacks}) > SETS:
                self.stacks.clear()
            there = [name for name in self.among if name in layer.lora_A]
            down = [layer.lora_A[name].weight for name in there]
            up = [layer.lora_B[name].weight * layer.scaling[name] for name in there]
            ranks = tuple((name, len(one)) for name, one in zip(there, down, strict=True))
            self.stacks[key] = Stack(torch.cat(down), torch.cat(up, 1), ranks) if there else None
        return self.stacks[key]

    def mask(self, stack: Stack) -> Tensor:
        """[rows, S] 1 where a row is under the adapter, the same for all layers of these ranks."""
        if stack.ranks not in self.masks:
            owner = [name for name, rank in stack.ranks for _ in range(rank)]
            kept = [[float(name == row) for name in owner] for row in self.rows]
            self.masks[stack.ranks] = torch.tensor(kept, dtype=stack.down.dtype, device=stack.down.device)
        return self.masks[stack.ranks]

    def spread(self, mask: Tensor, low: Tensor) -> Tensor:
        """A mask of rows for what a layer made of their tokens; a shared expert is given those of all, one row after
        another."""
        if low.dim() == 2:
            return mask.repeat_interleave(len(low) // len(mask), 0)
        return mask.view(len(mask), *[1] * (low.dim() - 2), -1)

    @contextmanager
    def under(self, rows: Sequence[str | None]) -> Iterator[None]:
        """Within it each row of a batch is under its adapter, or none; one that does not mix must be that of all."""
        names = {name for name in rows if name is not None}
        if any(not self.names[name] for name in names):
            [name] = names
            with self.alone(name):
                yield
            return
        self.rows, self.among, self.masks = tuple(rows), tuple(sorted(names)), {}
        try:
            yield
        finally:
            self.rows, self.among, self.masks = (), (), {}

    @contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """Within it all rows are under one adapter, as PEFT computes it."""
        self.tuned.base_model.enable_adapter_layers()
        self.tuned.set_adapter(name)
        try:
            yield
        finally:
            self.tuned.base_model.disable_adapter_layers()
