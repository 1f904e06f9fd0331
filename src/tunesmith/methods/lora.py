"""Train a low-rank update beside the model's weights."""

from typing import Literal

from ..config.record import Count, Fraction
from ..errors import RecipeError
from .base import Method, method


@method("lora")
class LoRA(Method):
    """LoRA (Hu et al. 2021, arXiv:2106.09685): the weights stay, and a product of two thin matrices is added."""

    r: Count = 8
    """Rank of the update; 8 to 64 suits most tasks."""
    lora_alpha: Count | None = None
    """The update is scaled by lora_alpha / r; twice r unless given."""
    lora_dropout: Fraction = 0.0
    """Share of the update's inputs dropped in training."""
    target_modules: tuple[str, ...] | Literal["all-linear"] = "all-linear"
    """Names of the layers to update, such as [q_proj, v_proj]; all-linear is every one but the head."""

    fast: bool = True
    """Compute the update in one step that keeps no copies; off, PEFT's own way is taken, for comparison."""

    def attach(self, model, heads=()):
        from peft import LoraConfig, get_peft_model
        from torch.nn import Linear

        from ._lora_linear import LoRALinear

        targets = self.target_modules if isinstance(self.target_modules, str) else list(self.target_modules)
        config = LoraConfig(
            r=self.r,
            lora_alpha=self.lora_alpha or 2 * self.r,
            lora_dropout=self.lora_dropout,
            target_modules=targets,
            modules_to_save=list(heads) or None,
            task_type="CAUSAL_LM" if model.can_generate() else "SEQ_CLS",
        )
        linear = [type(module) for module in model.modules() if isinstance(module, Linear)]
        if self.fast and set(linear) == {Linear}:  # quantised layers have ways of their own
            config._register_custom_module({Linear: LoRALinear})  # PEFT's own door for layers of one's own
        try:
            return get_peft_model(model, config)
        except ValueError as error:
            if "arget modules" not in str(error):
                raise
            raise RecipeError(unknown_targets(model, targets)) from None


def unknown_targets(model, targets) -> str:
    from torch.nn import Linear

    known = sorted({name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, Linear)})
    return f"method.lora.target_modules: no layer of the model is named {targets}; it has {', '.join(known)}"
