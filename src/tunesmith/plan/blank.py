"""A model under its method, as a run has it, but without weights: on torch's device `meta`, where nothing takes
room."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..errors import RecipeError
from ..methods.base import Method, largest_list, plain
from ..model.load import hushed, quiet
from ..precision.base import FORMATS, Precision
from .device import Device
from .known import Found

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..model.policy import Policy
    from ..run import Run


def blank(run: Run, found: Found, device: Device, labels: tuple[str, ...] = (), blocks: int | None = None) -> Policy:
    """The policy that a run would train on that device; with `blocks`, of so many only."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    from ..model.policy import Policy

    family: Any = AutoModelForSequenceClassification if labels else AutoModelForCausalLM
    config = shortened(found.config, blocks)
    if labels:
        config.num_labels = len(labels)
    config.dtype = numbers(run.model.precision, device)
    for part in {id(config): config, id(config.get_text_config()): config.get_text_config()}.values():
        part.__dict__.pop("quantization_config", None)
    with torch.device("meta"), quiet(), hushed():
        model = family.from_config(config, dtype=config.dtype, trust_remote_code=False)
        heads = tuple(name for name, part in model.named_children() if name != model.base_model_prefix and any_of(part))
        tuned = beginning(run.method).attach(model, heads if labels else ())
    tuned.train()
    lighten(tuned)
    if tuned is model:
        from ..model.learning import make_learning

        make_learning(model)
    if run.train.gradient_checkpointing:
        tuned.activation_checkpointing_enable({"use_reentrant": False})
    return Policy(tuned)


def any_of(part: nn.Module) -> bool:
    return next(part.parameters(), None) is not None


def beginning(method: Method) -> Method:
    """The method, beginning at nothing: what an update begins at needs weights, and takes no more room."""
    usual = {"init_lora_weights": "default", "adapter": None, "prompt_tuning_init_text": None, "pissa_niter": None}
    usual |= {"eva_rho": None}
    named = {key: value for key, value in usual.items() if getattr(method, key, value) != value}
    return replace(method, **named) if named else method  # pyright: ignore[reportArgumentType, reportCallIssue] - a record


def shortened(config: Any, blocks: int | None) -> Any:
    """A copy of a config, of so many blocks."""
    config = copy.deepcopy(config)
    if blocks is not None:
        text = config.get_text_config()
        text.num_hidden_layers = blocks
        if getattr(text, "layer_types", None):
            text.layer_types = text.layer_types[:blocks]
    return config


def numbers(precision: Precision, device: Device) -> torch.dtype:
    """The number format that is computed in."""
    import torch

    word = getattr(precision, "compute_dtype", precision.name)
    if word == "auto":
        word = "bf16" if device.kind == "gpu" and device.bf16 else "fp32"
    return getattr(torch, FORMATS[word])


def lighten(model: nn.Module) -> None:
    """Norms and gates that keep less (model/lean.py), where these would be tried and found to be the same.

    A norm is small enough to be tried here as well; a gate is known by its activation.
    """
    from torch import nn

    from ..model.lean import LeanGate, LeanNorm, leaner

    for parent in list(model.modules()):
        for name, module in list(parent.named_children()):
            parts = dict(module.named_children())
            gate = parts.get("act_fn")
            if type(module).__name__.endswith("RMSNorm") and not parts and next(module.parameters(), None) is not None:
                tried = copy.deepcopy(module).to_empty(device="cpu").float()
                for weight in tried.parameters():
                    nn.init.normal_(weight)
                lean = leaner(tried)
                if isinstance(lean, LeanNorm):
                    setattr(parent, name, LeanNorm(next(module.parameters()), lean.variance_epsilon))
            elif {"gate_proj", "up_proj", "down_proj"} <= set(parts) and "silu" in type(gate).__name__.lower():
                setattr(parent, name, LeanGate(parts))


@dataclass(frozen=True)
class Held:
    """What a model's weights are, in numbers and bytes."""

    total: int
    trainable: int
    bytes: float
    """All weights as they are held."""
    scales: float
    """What quantised weights need beside themselves; counted in `bytes`."""
    learning: int
    """Weights that learn, as tensors."""
    gradients: int
    largest: int
    """Bytes of the largest weight, as it is computed with."""
    block: float
    """Bytes of the largest block."""
    quantised: float
    """Bytes that the quantised weights would take in full."""


def held(policy: Policy, precision: Precision) -> Held:
    """A blank model's weights, and how many bytes a run holds them in."""
    weights = dict(policy.model.named_parameters())
    full = {id(weight): float(weight.nbytes) for weight in weights.values()}
    scales = quantised = 0.0
    if precision.quantised:
        for module in (inner for block in largest_list(policy.trunk) for inner in block.modules()):
            base: Any = getattr(module, "base_layer", module)
            weight = getattr(base, "weight", None)
            if not plain(base) or weight is None or weight.requires_grad or id(weight) not in full:
                continue
            quantised += full[id(weight)]
            code, scale = precision.room(weight.numel(), weight.shape[-1])
            full[id(weight)] = code + scale
            scales += scale
    learning = [weight for weight in weights.values() if weight.requires_grad]
    blocks = [sum(full[id(weight)] for weight in block.parameters()) for block in largest_list(policy.trunk)]
    return Held(
        total=sum(weight.numel() for weight in weights.values()),
        trainable=sum(weight.numel() for weight in learning),
        bytes=sum(full.values()),
        scales=scales,
        learning=len(learning),
        gradients=sum(weight.nbytes for weight in learning),
        largest=max((weight.nbytes for weight in weights.values()), default=0),
        block=max(blocks),
        quantised=quantised,
    )


def alike(policy: Policy) -> bool:
    """Whether all blocks learn alike, so that few of them tell of all."""
    blocks = largest_list(policy.trunk)
    learns = {tuple(weight.numel() for weight in block.parameters() if weight.requires_grad) for block in blocks}
    return len(learns) == 1


def refuse_unfit(run: Run, policy: Policy) -> None:
    """Refuse a method that finds nothing to train."""
    if not any(weight.requires_grad for weight in policy.model.parameters()):
        raise RecipeError(f"method: {run.method.name} trains nothing of {type(policy.bare).__name__}; take lora")
