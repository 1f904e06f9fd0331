"""Bottleneck adapters as a type that PEFT knows: switched, saved and loaded as its own are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from peft.config import PeftConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import Tensor, float32, nn

from .base import width

TYPE = "BOTTLENECK"
NON_LINEAR: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "linear": nn.Identity,
}  # fmt: skip


@dataclass
class BottleneckConfig(PeftConfig):
    """What `adapter_config.json` says of bottleneck adapters; docs/bottleneck.md describes the file."""

    peft_type: Any = TYPE
    target_modules: str | None = None
    bottleneck_size: int = 64
    parallel: bool = False
    non_linearity: str = "relu"
    dropout: float = 0.0
    scaling: float = 1.0
    modules_to_save: list[str] | None = None


class BottleneckLayer(nn.Module, BaseTunerLayer):
    """A module, and a narrow network that reads its result (or, in parallel, its input) and adds to its result."""

    adapter_layer_names = ("bottleneck_down", "bottleneck_up")

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: BottleneckConfig, size: int) -> None:
        super().__init__()
        self.base_layer, self.size, self.config = base_layer, size, config
        self.bottleneck_down, self.bottleneck_up = nn.ModuleDict(), nn.ModuleDict()
        self.between = nn.Sequential(NON_LINEAR[config.non_linearity](), nn.Dropout(config.dropout))
        self._active_adapter, self.merged_adapters = adapter_name, []
        self.update_layer(adapter_name)

    def update_layer(self, adapter_name: str) -> None:
        weight = next(self.base_layer.parameters())
        kind = weight.dtype if type(weight) is nn.Parameter and weight.is_floating_point() else float32  # or quantised
        down, up = nn.Linear(self.size, self.config.bottleneck_size), nn.Linear(self.config.bottleneck_size, self.size)
        nn.init.normal_(down.weight, std=0.02)
        for begins_at_nothing in (down.bias, up.weight, up.bias):
            nn.init.zeros_(begins_at_nothing)
        self.bottleneck_down[adapter_name] = down.to(weight.device, kind)
        self.bottleneck_up[adapter_name] = up.to(weight.device, kind)
        self.set_adapter(adapter_name, inference_mode=self.config.inference_mode)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        output = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters:
            return output
        states = output[0] if isinstance(output, tuple) else output
        read = x if self.config.parallel else states
        for name in self.active_adapters:
            if name in self.bottleneck_down:
                down = self.bottleneck_down[name]
                narrow = self.between(down(read.to(down.weight.dtype)))
                states = states + self.config.scaling * self.bottleneck_up[name](narrow).to(states.dtype)
        return (states, *output[1:]) if isinstance(output, tuple) else states


class BottleneckModel(BaseTuner):
    """A model some of whose modules are followed, or accompanied, by bottleneck adapters."""

    prefix = "bottleneck_"
    tuner_layer_cls = BottleneckLayer
    target_module_mapping: dict[str, Any] = {}

    def _create_and_replace(  # noqa: PLR0913 - PEFT's own arguments
        self, peft_config: Any, adapter_name, target, target_name, parent, current_key="", parameter_name=None
    ) -> None:
        size = width(target) or self.model.config.get_text_config().hidden_size
        self._replace_module(parent, target_name, BottleneckLayer(target, adapter_name, peft_config, size), target)


PEFT_TYPE_TO_CONFIG_MAPPING[TYPE] = BottleneckConfig  # pyright: ignore[reportArgumentType] - it is asked by this text
PEFT_TYPE_TO_TUNER_MAPPING[TYPE] = BottleneckModel  # pyright: ignore[reportArgumentType]
PEFT_TYPE_TO_PREFIX_MAPPING[TYPE] = BottleneckModel.prefix  # pyright: ignore[reportArgumentType]
