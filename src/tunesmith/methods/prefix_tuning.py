"""Train keys and values that every layer's attention finds before a text."""

import inspect
from typing import ClassVar, Literal

from ..config.record import Count
from ..errors import RecipeError
from ._peft import SIZES, Peft
from .base import method


@method("prefix_tuning")
class PrefixTuning(Peft):
    """Prefix tuning (Li & Liang 2021, arXiv:2101.00190): the keys and values of a few virtual tokens learn, apart for
    each layer; the model stays as it is."""

    num_virtual_tokens: Count = 20
    """How many virtual tokens."""
    prefix_projection: bool = False
    """Have keys and values made by a network that learns, as in the paper; only what it makes is saved."""
    encoder_hidden_size: Count | None = None
    """That network's width; the model's unless given."""
    init_weights: Literal["random", "zero"] = "random"
    """Begin with random keys and values, or with none."""

    suits: ClassVar[tuple[float, float]] = (0.001, 0.1)
    peft_type: ClassVar[str] = "PREFIX_TUNING"
    obeyed: ClassVar[set[str]] = {"num_virtual_tokens"}
    unread: ClassVar[set[str]] = SIZES | {"encoder_hidden_size", "prefix_projection", "init_weights"}

    def config(self, model, kind):
        from peft import PrefixTuningConfig

        if "past_key_values" not in inspect.signature(model.forward).parameters:
            raise RecipeError(
                f"method: prefix_tuning is for models that read from left to right, which {type(model).__name__} is"
                " not; take prompt_tuning or lora"
            )
        return PrefixTuningConfig(
            num_virtual_tokens=self.num_virtual_tokens,
            prefix_projection=self.prefix_projection,
            encoder_hidden_size=self.encoder_hidden_size or model.config.get_text_config().hidden_size,
            init_weights=None if self.init_weights == "random" else "zero",
            **kind,
        )
