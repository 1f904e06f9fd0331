"""Activations that wait elsewhere for the backward pass: in a file, or out of a GPU in main memory."""

from __future__ import annotations

import weakref
from contextlib import AbstractContextManager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef

from ..errors import RecipeError

Where = Literal["no", "cpu", "disk"]
SMALL = 4096
"""Bytes that are not worth a journey."""


def refuse_offload(where: Where) -> None:
    if where == "cpu" and not torch.cuda.is_available():
        raise RecipeError(
            "train.activation_offload: cpu takes activations out of a GPU, and there is none; take disk, or"
            " train.gradient_checkpointing=true"
        )


def elsewhere(where: Where, model: nn.Module, folder: Path) -> Offload | None:
    """Where the activations of a model go, if they are to go anywhere."""
    if where == "no":
        return None
    return Offload(model, File(folder) if where == "disk" else Memory())


class Slot:
    """A tensor that was put away; when nobody wants it any more, its place is free."""

    def __init__(self, place: Any, like: Tensor, store: File | Memory) -> None:
        self.place, self.store = place, store
        self.shape, self.dtype, self.device = like.shape, like.dtype, like.device
        weakref.finalize(self, store.leave).atexit = False

    def fetch(self) -> Tensor:
        return self.store.read(self).to(self.device)


class Memory:
    """Main memory, beside that of a GPU."""

    def put(self, tensor: Tensor) -> Slot:
        return Slot(tensor.to("cpu", copy=True), tensor, self)

    def read(self, slot: Slot) -> Tensor:
        return slot.place

    def leave(self) -> None:
        pass


class File:
    """A file without a name in a run's folder, filled from its beginning each time that all was taken back."""

    def __init__(self, folder: Path) -> None:
        self.file = TemporaryFile(dir=folder)  # noqa: SIM115 - open as long as it is wanted
        weakref.finalize(self, self.file.close)
        self.end, self.slots, self.written = 0, 0, 0

    def put(self, tensor: Tensor) -> Slot:
        numbers: Any = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        self.file.seek(self.end)
        self.file.write(numbers)
        slot, size = Slot((self.end, tensor.nbytes), tensor, self), tensor.nbytes
        self.end, self.slots, self.written = self.end + size, self.slots + 1, self.written + size
        return slot

    def read(self, slot: Slot) -> Tensor:
        start, size = slot.place
        numbers = torch.empty(size, dtype=torch.uint8)
        into: Any = numbers.numpy()
        self.file.seek(start)
        if self.file.readinto(into) != size:  # pyright: ignore[reportAttributeAccessIssue] - it is a buffered file
            raise OSError("activations that were put away cannot be read back")
        return numbers.view(slot.dtype).view(slot.shape)

    def leave(self) -> None:
        self.slots -= 1
        if not self.slots:
            self.end = 0


class Held(NamedTuple):
    """What was put away of a tensor that may still be there: another function may save it too."""

    storage: StorageWeakRef
    slot: weakref.ref[Slot]


class Offload:
    """Puts away what autograd saves, but for weights, which are there anyway."""

    def __init__(self, model: nn.Module, store: File | Memory) -> None:
        self.model, self.store = model, store
        self.known: dict[tuple, Held] = {}

    def __call__(self) -> AbstractContextManager:
        """Within it, what is saved for the backward pass is put away."""
        self.known.clear()
        weights = {weight.untyped_storage().data_ptr() for weight in self.model.parameters()}

        def pack(tensor: Tensor) -> Tensor | Slot:
            stays = tensor.layout != torch.strided or tensor.nbytes < SMALL
            if stays or tensor.untyped_storage().data_ptr() in weights:
                return tensor
            return self.once(tensor)

        return saved_tensors_hooks(pack, lambda kept: kept.fetch() if isinstance(kept, Slot) else kept)

    def once(self, tensor: Tensor) -> Slot:
        """The slot of a tensor: that which it has, if it was put away before and is still what it was."""
        key = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype, tensor._version)
        held = self.known.get(key)
        slot = None if held is None or held.storage.expired() else held.slot()
        if slot is None:
            slot = self.store.put(tensor)
            self.known[key] = Held(StorageWeakRef(tensor.untyped_storage()), weakref.ref(slot))
        return slot
