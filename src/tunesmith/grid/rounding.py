"""How much of what a model says hangs on rounding, where products are of few bits too and not the weights alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.nn.functional import linear


@contextmanager
def unrounded(model: Any) -> Iterator[None]:
    """Within it, layers of LLM.int8 multiply by the weights that they hold, and round no inputs."""
    from peft.utils.integrations import dequantize_bnb_weight

    def product(layer: Any, inputs: tuple[Any, ...], output: Any) -> Any:
        weight = dequantize_bnb_weight(layer.weight, state=layer.state).to(inputs[0].dtype)
        return linear(inputs[0], weight, layer.bias).to(output.dtype)

    rounding = [module for module in model.modules() if type(module).__name__ == "Linear8bitLt"]
    layers = [module for module in rounding if hasattr(module, "state")]  # PEFT has a layer of that name around it
    if not layers:
        raise LookupError("no layer of the model rounds what it is given")
    hooks = [layer.register_forward_hook(product) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
