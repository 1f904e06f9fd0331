"""Train low-rank updates whose ranks are given to the layers that need them."""

from typing import ClassVar

from ..config.record import Count, Fraction, Natural, NonNegative
from ..errors import RecipeError
from ._peft import Names, Peft, layers, targets
from .base import method
from .lora import check_rank


@method("adalora")
class AdaLoRA(Peft):
    """AdaLoRA (Zhang et al. 2023, arXiv:2303.10512): updates in the form of a singular value decomposition; values that
    matter little are dropped as training goes on, until target_r a layer are left on average."""

    init_r: Count = 12
    """Rank of each update at the beginning."""
    target_r: Count = 8
    """Average rank at the end."""
    lora_alpha: Count | None = None
    """The update is scaled by lora_alpha / rank; twice init_r unless given."""
    lora_dropout: Fraction = 0.0
    """Share of the update's inputs dropped in training."""
    target_modules: Names = "all-linear"
    """Names of the layers to update, or a pattern of whole paths; all-linear is every one but the head."""
    tinit: Natural = 0
    """Steps before the first rank is dropped."""
    tfinal: Natural = 0
    """Steps at the end in which ranks stay as they are."""
    deltaT: Count = 1
    """Steps between two rounds of dropping."""
    beta1: Fraction = 0.85
    """How slowly the average of a value's importance moves."""
    beta2: Fraction = 0.85
    """How slowly the average of its uncertainty moves."""
    orth_reg_weight: NonNegative = 0.5
    """Weight, in the loss, of how far the vectors are from orthogonal."""

    reads_gradients: ClassVar[bool] = True

    suits: ClassVar[tuple[float, float]] = (0.0001, 0.01)
    peft_type: ClassVar[str] = "ADALORA"
    obeyed: ClassVar[set[str]] = {
        "init_r", "target_r", "tinit", "tfinal", "deltaT", "beta1", "beta2", "orth_reg_weight", "total_step",
        "lora_alpha", "lora_dropout", "rank_pattern",
    }  # fmt: skip
    unread: ClassVar[set[str]] = {"r", "init_lora_weights", "megatron_core", "qalora_group_size"}

    def config(self, model, kind):
        from peft import AdaLoraConfig

        if self.target_r >= self.init_r:
            raise RecipeError(
                f"method.target_r: {self.target_r} must be less than init_r, {self.init_r}: ranks only drop"
            )
        for key in ("beta1", "beta2"):
            if not 0 < getattr(self, key) < 1:
                raise RecipeError(f"method.{key}: must be between 0 and 1, but neither (got {getattr(self, key)})")
        chosen = targets(model, self.target_modules)
        for path, layer in layers(model, self.target_modules, kind).items():
            check_rank(path, layer, self.init_r, "init_r")
        return AdaLoraConfig(
            init_r=self.init_r,
            target_r=self.target_r,
            lora_alpha=self.lora_alpha or 2 * self.init_r,
            lora_dropout=self.lora_dropout,
            target_modules=chosen,
            tinit=self.tinit,
            tfinal=self.tfinal,
            deltaT=self.deltaT,
            beta1=self.beta1,
            beta2=self.beta2,
            orth_reg_weight=self.orth_reg_weight,
            total_step=self.tinit + self.tfinal + 1,  # a run says how long it is when its first step is taken
            **kind,
        )

    def penalty(self, model):
        """The mean over all matrices of `|P P' - 1|`."""
        from torch import eye, stack
        from torch.linalg import matrix_norm

        weights = dict(model.named_parameters())
        squares = [weight @ weight.T for name, weight in weights.items() if ".lora_A." in name]
        squares += [weight.T @ weight for name, weight in weights.items() if ".lora_B." in name]
        return self.orth_reg_weight * stack([matrix_norm(one - eye(len(one)).to(one)) for one in squares]).mean()

    def after_step(self, model, step, total):
        if self.tinit + self.tfinal >= total:
            raise RecipeError(
                f"method.tinit: {self.tinit} and tfinal, {self.tfinal}, leave none of the run's {total} steps to drop"
                " ranks in; make them smaller"
            )
        model.peft_config["default"].total_step = total
        model.base_model.update_and_allocate(step)

    def state(self, model):
        from torch import tensor

        allocator = model.base_model.rankallocator
        averages = {f"{kind}|{name}": value for kind in AVERAGES for name, value in getattr(allocator, kind).items()}
        pattern = model.peft_config["default"].rank_pattern or {}
        return averages | {f"{KEPT}|{name}": tensor(kept) for name, kept in pattern.items()}

    def restore(self, model, state):
        from torch import zeros_like

        allocator = model.base_model.rankallocator
        allocator.reset_ipt()
        pattern = {}
        for key, value in state.items():
            kind, _, name = key.partition("|")
            if kind == KEPT:
                pattern[name] = value.tolist()
            else:
                getattr(allocator, kind)[name] = value
                allocator.ipt.setdefault(name, zeros_like(value))  # made anew each step
        model.peft_config["default"].rank_pattern = pattern or None


AVERAGES = ("exp_avg_ipt", "exp_avg_unc")
KEPT = "kept"
