"""Train blocks that are put between the model's own."""

from copy import deepcopy
from typing import ClassVar

from ..config.record import Count
from ..errors import RecipeError
from .base import Method, largest_list, method, outputs


@method("llama_pro")
class LlamaPro(Method):
    """LLaMA Pro (Wu et al. 2024, arXiv:2401.02415): copies of blocks are put between these, so made that they change
    nothing at first, and only they learn. What is saved is an ordinary model, deeper by so many blocks."""

    num_expand: Count = 2
    """How many blocks are added, spread evenly."""

    suits: ClassVar[tuple[float, float]] = (1e-6, 0.0005)
    detachable: ClassVar[bool] = False
    begins_alike: ClassVar[bool] = True

    def attach(self, model, heads=()):
        blocks = largest_list(model)
        before = len(blocks)
        if self.num_expand > before:
            raise RecipeError(
                f"method.num_expand: {self.num_expand} is more than the {before} blocks of the model; a copy of each"
                " is the most"
            )
        model.requires_grad_(False)
        copied = [(number + 1) * before // self.num_expand - 1 for number in range(self.num_expand)]
        for at in reversed(copied):
            blocks.insert(at + 1, idle(model, blocks[at]))
        for at, block in enumerate(blocks):
            for module in block.modules():
                if hasattr(module, "layer_idx"):
                    vars(module)["layer_idx"] = at  # by which it finds its part of the cache
        deepen(model.config.get_text_config(), copied, before)
        for head in heads:
            model.get_submodule(head).requires_grad_(True)
        return model


def idle(model, block):
    """A copy of a block that learns, and gives what it is given until it has learnt something."""
    from torch.nn.init import zeros_

    new = deepcopy(block).requires_grad_(True)
    for name in outputs(model, new):
        for weight in new.get_submodule(name).parameters():
            zeros_(weight)
    return new


def deepen(config, copied: list[int], before: int) -> None:
    """Let a config tell of the new blocks: their number, and what it says of each block apart."""
    for key, value in vars(config).items():
        if isinstance(value, list) and len(value) == before:
            setattr(config, key, [one for at, one in enumerate(value) for _ in range(1 + (at in copied))])
    config.num_hidden_layers = before + len(copied)
