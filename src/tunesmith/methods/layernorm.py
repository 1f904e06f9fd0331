"""Train copies of the model's norms."""

from typing import ClassVar

from ._peft import Names, Peft, norm, targets
from .base import method


@method("layernorm")
class LayerNorm(Peft):
    """Tuning of norms alone (Zhao et al. 2023, arXiv:2312.11420): a few numbers a block, saved as an adapter."""

    target_modules: Names | None = None
    """Names of the norms, such as [input_layernorm], or a pattern of whole paths; all of them unless given."""

    suits: ClassVar[tuple[float, float]] = (0.0001, 0.01)
    peft_type: ClassVar[str] = "LN_TUNING"

    def config(self, model, kind):
        from peft import LNTuningConfig

        every = tuple(sorted({path for path, module in model.named_modules() if norm(module)}))
        chosen = every if self.target_modules is None else self.target_modules
        return LNTuningConfig(target_modules=targets(model, chosen, what="norm"), **kind)
