"""Models that are quantised on disk: which kinds are loaded, and what of their config is obeyed.

A `quantization_config` may say how weights are laid out. Which kernel computes with them is never its word.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import RecipeError
from ..precision.base import Precision, require
from ..precision.bitsandbytes import keep_as_read

if TYPE_CHECKING:
    import torch

Setting = dict[str, Any]
NAME = re.compile(r"[\w.]+")
"""A module's; transformers would take any pattern."""
YES_OR_NO, NAMES = (True, False), "names"
BITS, GROUPS = (2, 3, 4, 8), (-1, 16, 32, 64, 128, 256, 512, 1024)


class Kind(NamedTuple):
    """How the weights of one kind are described."""

    obeyed: dict[str, Any]
    """What may stand there, by key: one of several values, a whole number, or names of modules."""
    unread: set[str]
    """Keys that tell how the weights were made, or which kernel should be taken."""
    package: str
    needs_gpu: bool = False


MADE = {
    "quant_method", "backend", "meta", "version", "quantizer", "dataset", "tokenizer", "damp_percent",
    "damp_auto_increment", "true_sequential", "static_groups", "model_seqlen", "max_input_length", "batch_size",
    "pad_token_id", "cache_block_outputs", "use_cuda_fp16", "use_exllama", "disable_exllama", "exllama_config",
    "do_fuse", "modules_to_fuse", "fuse_max_seq_len", "model_name_or_path", "model_file_base_name",
    "act_group_aware", "mse", "block_name_to_quantize", "module_name_preceding_first_block", "_load_in_4bit",
    "_load_in_8bit", "bnb_4bit_compute_dtype", "llm_int8_enable_fp32_cpu_offload",
}  # fmt: skip
KINDS = {
    "bitsandbytes": Kind(
        {
            "load_in_4bit": YES_OR_NO,
            "load_in_8bit": YES_OR_NO,
            "bnb_4bit_quant_type": ("nf4", "fp4"),
            "bnb_4bit_use_double_quant": YES_OR_NO,
            "bnb_4bit_quant_storage": ("uint8",),
            "llm_int8_threshold": (6.0,),
            "llm_int8_has_fp16_weight": (False,),
            "llm_int8_skip_modules": NAMES,
        },
        MADE,
        "bitsandbytes",
    ),
    "gptq": Kind(
        {
            "bits": BITS,
            "group_size": GROUPS,
            "desc_act": YES_OR_NO,
            "sym": YES_OR_NO,
            "format": ("gptq", "gptq_v2"),
            "checkpoint_format": ("gptq", "gptq_v2"),
            "method": ("gptq",),
            "pack_dtype": ("int32",),
        },
        MADE,
        "gptqmodel",
        needs_gpu=True,
    ),
    "awq": Kind(
        {
            "bits": (4,),
            "group_size": GROUPS,
            "zero_point": YES_OR_NO,
            "format": ("gemm",),
            "version": ("gemm", "GEMM"),
            "checkpoint_format": ("gemm",),
            "method": ("awq",),
            "pack_dtype": ("int32",),
            "desc_act": YES_OR_NO,
            "sym": YES_OR_NO,
            "modules_to_not_convert": NAMES,
        },
        MADE - {"version"},
        "gptqmodel",
        needs_gpu=True,
    ),
    "aqlm": Kind(
        {
            "in_group_size": (8, 16),
            "out_group_size": (1,),
            "num_codebooks": range(1, 9),
            "nbits_per_codebook": range(1, 17),
            "linear_weights_not_to_quantize": NAMES,
        },
        MADE,
        "aqlm",
        needs_gpu=True,
    ),
    "eetq": Kind({"weights": ("int8",), "modules_to_not_convert": NAMES}, MADE, "kernels", needs_gpu=True),
}


def stored(file: Path, config: Setting) -> Setting:
    """What is obeyed of a config's `quantization_config`; nothing if the weights are not quantised."""
    said = config.get("quantization_config")
    if not said:
        return {}
    name = said.get("quant_method") if isinstance(said, dict) else said
    if not isinstance(name, str) or name not in KINDS:
        raise RecipeError(
            f"{file}: quantization_config: quantised weights of the kind {str(name)[:40]!r}, and the kernels that they"
            f" ask for, are not loaded; take the model in bf16 or fp32, or as one of {', '.join(KINDS)}"
        )
    kind = KINDS[name]
    obeyed: Setting = {"quant_method": name}
    for key, value in said.items():
        at = f"{file}: quantization_config: {key}"
        if key in kind.obeyed:
            obeyed[key] = checked_value(at, kind.obeyed[key], value)
        elif key not in kind.unread and value:
            raise RecipeError(f"{at}: is not known of {name}; take the model in bf16 or fp32")
    return obeyed


def checked_value(at: str, allowed: Any, value: Any) -> Any:
    """A value, if it is one that may stand there."""
    if value is None:
        return value
    if allowed == NAMES:
        if isinstance(value, list) and all(isinstance(one, str) and NAME.fullmatch(one) for one in value):
            return value
        raise RecipeError(f"{at}: must be names of modules (got {str(value)[:60]})")
    if not any(type(value) is type(one) and value == one for one in allowed):
        raise RecipeError(f"{at}: must be one of {', '.join(map(str, allowed))} (got {str(value)[:60]})")
    return value


def quantisation(config: Any) -> Setting:
    """How the weights of a model with this config are quantised already; nothing if they are not."""
    return getattr(config, "quantization_config", None) or {}


def refuse_stored(folder: Path, said: Setting, precision: Precision, adapters: Sequence[str] = ()) -> None:
    """Refuse a quantised model that cannot be used here, before its weights are read."""
    import torch

    if not said:
        return
    name = said["quant_method"]
    kind, whole = KINDS[name], "take the model in bf16 or fp32"
    if precision.quantised:
        raise RecipeError(
            f"model.precision: the weights in {folder} are quantised already, by {name}; set model.precision=auto, or"
            f" {whole}"
        )
    if adapters:
        raise RecipeError(f"model.adapters: cannot be merged into weights that {name} has quantised; {whole}")
    if kind.needs_gpu and not torch.cuda.is_available():
        raise RecipeError(
            f"model.path: {folder} is quantised by {name}, which needs a GPU; {whole}, with model.precision=nf4 to hold"
            " it in 4 bits"
        )
    if name != "bitsandbytes" and precision.name != "auto":
        raise RecipeError(
            f"model.precision: {folder} is quantised by {name}, whose numbers stay as they are stored; set it to auto"
        )
    require(kind.package, f"model.path: {folder} is quantised by {name}, and")


def renumber(model, dtype: torch.dtype) -> None:
    """Hold and compute in a number format what is not quantised: transformers 5.23 leaves it as it was stored."""
    from torch.nn import Parameter

    keep_as_read(model)
    for module in model.modules():
        if hasattr(module, "compute_type_is_set"):
            module.compute_dtype, module.compute_type_is_set = dtype, True
        for weight in module.parameters(recurse=False):
            if type(weight) is Parameter and weight.is_floating_point():
                weight.data = weight.data.to(dtype)
