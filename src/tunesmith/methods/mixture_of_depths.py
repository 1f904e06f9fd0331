"""Train a model to compute every other block for some tokens only."""

from inspect import signature
from typing import Any, ClassVar

from ..config.record import Count, Fraction
from ..errors import RecipeError
from .base import Method, largest_list, method

ROUTERS = ("router", "predictor")
"""What such a block has beside its own."""
ATTENTION = ("sdpa", "eager", "tunesmith_sdpa", "tunesmith_eager")
"""Those that a mask can tell which tokens are there."""


@method("mixture_of_depths")
class MixtureOfDepths(Method):
    """Mixture-of-Depths (Raposo et al. 2024, arXiv:2404.02258): a router takes of each sequence the tokens that a block
    is computed for, and all of the model learns. What is saved is no ordinary model: other programs do not know it."""

    capacity: Fraction = 0.5
    """Share of a sequence's tokens that go through such a block; the paper trains from the start with 0.125."""
    every: Count = 2
    """Every so manieth block is one, but for the last; the paper takes every other."""

    detachable: ClassVar[bool] = False
    begins_alike: ClassVar[bool] = True

    def attach(self, model, heads=()):
        if not 0 < self.capacity < 1:
            raise RecipeError(f"method.capacity: must be more than 0 and less than 1 (got {self.capacity:g})")
        config = model.config.get_text_config()
        if getattr(config, "mixture_of_depths", None):
            raise RecipeError("method: the model is a mixture of depths already; train it by method=full")
        blocks = len(largest_list(model))
        numbers = list(range(self.every - 1, blocks, self.every))
        if not numbers:
            raise RecipeError(f"method.every: {self.every} is more than the {blocks} blocks; take 2")
        if numbers[1:] and numbers[-1] == blocks - 1:
            del numbers[-1]  # what passes by the last block teaches it nothing
        model.requires_grad_(True)
        config.mixture_of_depths = {"capacity": self.capacity, "blocks": numbers}
        deepen(model)
        return model


def deepen(model) -> None:
    """Let those blocks of a model choose that its config names; their routers are new."""
    from ._depths import route

    config = model.config.get_text_config()
    said = config.mixture_of_depths
    blocks = largest_list(model)
    check(model, config, blocks[0])
    if max(said["blocks"]) >= len(blocks):
        raise RecipeError(f"model.path: the config names block {max(said['blocks'])}, and the model has {len(blocks)}")
    for number in said["blocks"]:
        route(blocks[number], config.hidden_size, said["capacity"])


def check(model, config: Any, block) -> None:
    """Refuse models whose blocks are not as Llama's are, or whose attention cannot be told who is there."""
    takes, attention = signature(block.forward).parameters, getattr(block, "self_attn", None)
    known = {"hidden_states", "attention_mask", "position_embeddings", "past_key_values"} <= takes.keys()
    windows = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    kinds = {*(getattr(config, "layer_types", None) or [])} - {"full_attention"}
    if not known or windows or kinds or not hasattr(attention, "k_proj") or not hasattr(attention, "head_dim"):
        raise RecipeError(
            f"method: mixture_of_depths is for models of Llama's kind, in which all tokens see all before them, and"
            f" {type(model).__name__} is another; take lora"
        )
    if config._attn_implementation not in ATTENTION or getattr(config, "shifted_group_size", None):
        raise RecipeError("model.attn: mixture_of_depths is for sdpa and eager, without groups; take sdpa")


KIND = "mixture_of_depths"
"""What stands for `model_type` where such a model is saved, so that nobody takes it for one whose blocks see all."""


def mark(said: dict[str, Any]) -> dict[str, Any]:
    """A config as it is saved."""
    if not said.get(KIND):
        return said
    return said | {"model_type": KIND, "blocks_of": said["model_type"], "architectures": []}


def unmark(said: dict[str, Any]) -> dict[str, Any]:
    """A config as transformers knows it, of what `mark` wrote."""
    parts: Any = said.get(KIND)
    blocks = parts.get("blocks") if isinstance(parts, dict) else None
    if not isinstance(blocks, list) or not blocks or not all(isinstance(one, int) and one >= 0 for one in blocks):
        raise RecipeError(f"model.path: the config of a {KIND} must say which blocks choose; copy it anew")
    if not isinstance(parts.get("capacity"), int | float) or not 0 < parts["capacity"] <= 1:
        raise RecipeError(f"model.path: the config of a {KIND} must have a capacity between 0 and 1; copy it anew")
    return said | {"model_type": said.get("blocks_of")}
