"""Train a factor for each feature of a few layers."""

from typing import ClassVar

from ..errors import RecipeError
from ._peft import Names, Peft, in_blocks, targets
from .base import largest_list, method, outputs, width


@method("ia3")
class IA3(Peft):
    """(IA)^3 (Liu et al. 2022, arXiv:2205.05638): keys, values and what is within the feed-forward part are scaled."""

    target_modules: Names | None = None
    """Layers whose results are scaled, feed-forward ones included; keys, values and feed-forward unless given."""
    feedforward_modules: Names | None = None
    """Those of them whose inputs are scaled instead; the layers by which feed-forward parts give their result unless
    given."""

    suits: ClassVar[tuple[float, float]] = (0.001, 0.1)
    peft_type: ClassVar[str] = "IA3"
    obeyed: ClassVar[set[str]] = {"feedforward_modules"}
    unread: ClassVar[set[str]] = {"init_ia3_weights"}

    def config(self, model, kind):
        from peft import IA3Config

        if self.target_modules is None:
            chosen = in_blocks(model, [*self.usual(model), feedforward(model)])
        else:
            chosen = targets(model, self.target_modules)
        if self.feedforward_modules is None:
            inner = in_blocks(model, [feedforward(model)])
        else:
            inner = targets(model, self.feedforward_modules, "feedforward_modules")
        if not isinstance(inner, str) and not isinstance(chosen, str) and set(inner) - set(chosen):
            raise RecipeError(
                f"method.feedforward_modules: {sorted(set(inner) - set(chosen))[0]} is not among target_modules; name"
                " it there too"
            )
        return IA3Config(target_modules=chosen, feedforward_modules=inner, **kind)

    def usual(self, model) -> tuple[str, ...]:
        """The layers that the paper scales, as they are called in this model."""
        from torch.nn import Module

        block: Module = largest_list(model)[0]
        found = [name for name, module in block.named_modules() if width(module) and "att" in name.lower()]
        both = [name for name in found if name.rpartition(".")[2] in BOTH]
        keys = [name for name in found if name.rpartition(".")[2] in KEYS + VALUES]
        if not both and len(keys) < 2:
            raise RecipeError(
                f"method.target_modules: which layers of {type(block).__name__} make keys and values is not known;"
                f" name them and the feed-forward ones, of {', '.join(found) or 'none'}"
            )
        return tuple(keys or both)


KEYS = ("k_proj", "key", "k", "k_lin")
VALUES = ("v_proj", "value", "v", "v_lin")
BOTH = ("query_key_value", "c_attn", "qkv_proj", "Wqkv", "qkv", "kv_proj")


def feedforward(model) -> str:
    return outputs(model, largest_list(model)[0])[1]
