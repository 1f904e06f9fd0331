"""What is delivered: a finished run, its weights whole, and what the model says before it is written."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..errors import RecipeError
from ..model.adapter import adapter_config, adapter_weights, kind_of, mergeable, merged
from ..model.hub import locate
from ..model.load import hushed, load_model, pad_as
from ..model.solid import solid
from ..model.stored import quantisation
from ..objectives.base import Beside
from ..precision.plain import FP32
from ..tuned import Tuned, load_run
from .base import Into


@dataclass
class Source:
    """A finished run, for one delivery."""

    tuned: Tuned

    @property
    def adapter(self):
        """The folder of what was learnt beside the model; None where the model itself was trained."""
        folder = self.tuned.folder.path / "adapter"
        return folder if folder.is_dir() else None

    @property
    def tokenizer(self):
        return self.tuned.tokenizer

    @property
    def labels(self) -> tuple[str, ...]:
        return self.tuned.labels

    @cached_property
    def model(self) -> Any:
        """What was trained, as it says it in 32 bits: in 16 what it says is rounded, and is not what weights hold."""
        return in_32_bits(self.tuned.model)

    @cached_property
    def quantised(self) -> bool:
        """Whether the weights beside the adapter were held in few bits as it was trained."""
        return self.tuned.run.model.precision.quantised

    def refuse_unmergeable(self, why: str) -> None:
        """Raises RecipeError for an adapter that no weights can take in."""
        if self.adapter is None:
            return
        config = adapter_config(self.adapter, adapter_weights(self.adapter))
        if not mergeable(config):
            raise RecipeError(
                f"{self.tuned.folder.path}: its adapter is of the kind {kind_of(config)}, which no weights can take in,"
                f" and {why}; deliver it with --to adapter"
            )

    def whole(self, into: Into = "trained_on") -> Any:
        """A model of ordinary weights, in 32 bits, that has taken in what was learnt."""
        settings = self.tuned.run.model
        if self.adapter is None:
            return solid(self.model).float()
        held = settings.precision if into == "trained_on" else FP32()
        base = locate(settings.path)
        model, _ = load_model(base, held, self.labels, settings.adapters, settings.changes)
        if self.labels:
            pad_as(self.tokenizer, model)
        with hushed():
            return merged(solid(model).float(), self.adapter).eval()


def in_32_bits(model: Any) -> Any:
    """A model that computes so; one in few bits by other than bitsandbytes or HQQ goes on as its own kernels do."""
    import torch

    said = quantisation(model.config)
    if model.dtype == torch.float32 or (said and not hasattr(said, "load_in_4bit")):
        return model
    for module in model.modules():
        if hasattr(module, "compute_dtype"):  # of bitsandbytes and HQQ, whose codes stay as they are
            module.compute_dtype = torch.float32
    return model.float()


def source_of(folder: str) -> Source:
    """The run in a folder."""
    tuned = load_run(folder)
    if tuned.folder.status != "finished":
        raise RecipeError(
            f"{folder}: the run is {tuned.folder.status}, not finished; `tunesmith resume` goes on with it"
        )
    if isinstance(tuned.labels, Beside):
        raise RecipeError(
            f"{folder}: this run both writes and tells what texts are (objective=mixed), and no way of delivering keeps"
            " both; what is in its folder loads as it is, by PEFT and transformers"
        )
    return Source(tuned)
