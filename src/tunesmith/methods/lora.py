"""Train a low-rank update beside the model's weights."""

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge

from ..config.record import Count, Fraction, Positive
from ..errors import RecipeError
from ._peft import ALL, Names, Peft, last, layers, linear, targets
from .base import method, plain, sizes

MOVES_BASE = ("pissa", "olora")
"""Ways to begin that take from the weights what they put into the update."""


@method("lora")
class LoRA(Peft):
    """LoRA (Hu et al. 2021, arXiv:2106.09685): the weights stay, and a product of two thin matrices is added."""

    r: Count = 8
    """Rank of the update; 8 to 64 suits most tasks."""
    lora_alpha: Count | None = None
    """The update is scaled by lora_alpha / r; twice r unless given."""
    lora_dropout: Fraction = 0.0
    """Share of the update's inputs dropped in training."""
    target_modules: Names = "all-linear"
    """Names of the layers to update, such as [q_proj, v_proj], or a pattern of whole paths; all-linear is every one
    but the head."""
    target_parameters: tuple[str, ...] = ()
    """Parameters that are no layer's own, such as fused experts: [experts.gate_up_proj, experts.down_proj]."""
    rank_pattern: dict[str, Count] | None = None
    """Ranks of layers that have another than r, by name or pattern: {v_proj: 16}."""
    alpha_pattern: dict[str, Count] | None = None
    """The same of lora_alpha."""
    bias: Literal["none", "all", "lora_only"] = "none"
    """Which biases of the model are trained too."""
    use_rslora: bool = False
    """Scale by lora_alpha / sqrt(r), which keeps large ranks useful (Kalajdzievski 2023, arXiv:2312.03732)."""
    use_dora: bool = False
    """Learn the length of each row apart from its direction (Liu et al. 2024, arXiv:2402.09353)."""
    init_lora_weights: Literal["default", "gaussian", "orthogonal", "pissa", "olora", "loftq", "eva"] = "default"
    """How the update begins: at nothing (default, gaussian, orthogonal), at the largest singular values of the weights
    (pissa: Meng et al. 2024, arXiv:2404.02948), or at their QR factors (olora: Büyükakyüz 2024, arXiv:2406.01775);
    these two are saved as a plain LoRA of twice the rank. Over a quantised base, loftq begins at what that has lost
    (Li et al. 2023, arXiv:2310.08659). eva begins at the directions along which a layer's inputs vary most over
    training rows, and gives ranks where these explain most (Paischer et al. 2024, arXiv:2410.07170)."""
    pissa_niter: Count | None = None
    """With pissa, find the singular values by so many rounds of a randomised method; exactly unless given."""
    eva_rho: Annotated[float, Ge(1)] | None = None
    """With eva, how many times r the rank of a layer may become, while all together stay what they were; 2 unless
    given, and 1 leaves each as it is."""
    loraplus_lr_ratio: Positive | None = None
    """LoRA+ (Hayou et al. 2024, arXiv:2402.12354): how much faster the second matrix learns, such as 16."""

    fast: bool = True
    """Compute the update in one step that keeps no copies; off, PEFT's own way is taken, for comparison."""

    suits: ClassVar[tuple[float, float]] = (2e-5, 0.005)
    peft_type: ClassVar[str] = "LORA"
    obeyed: ClassVar[set[str]] = {
        "r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern",
        "target_parameters",
    }  # fmt: skip
    unread: ClassVar[set[str]] = {"init_lora_weights", "eva_config", "megatron_core", "qalora_group_size"}

    @property
    def detachable(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.init_lora_weights not in MOVES_BASE

    @property
    def leaves_base(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.bias == "none"

    def config(self, model, kind):
        from peft import LoraConfig
        from torch.nn import Linear

        from ._lora_linear import LoRALinear

        self.check_loftq(model)
        self.check_eva()
        if self.adapter and self.init_lora_weights in MOVES_BASE:
            raise RecipeError(
                f"method.init_lora_weights: {self.init_lora_weights} begins in the weights, method.adapter elsewhere;"
                " take default (what such a run has saved is a plain LoRA of twice its rank)"
            )
        if self.pissa_niter and self.init_lora_weights != "pissa":
            raise RecipeError("method.pissa_niter: is for init_lora_weights=pissa; leave it out")
        config = LoraConfig(
            r=self.r,
            lora_alpha=self.lora_alpha or 2 * self.r,
            lora_dropout=self.lora_dropout,
            target_modules=self.targets(model, kind),
            target_parameters=list(self.target_parameters) or None,
            rank_pattern=dict(self.rank_pattern or {}),
            alpha_pattern=dict(self.alpha_pattern or {}),
            bias=self.bias,
            use_rslora=self.use_rslora,
            use_dora=self.use_dora,
            init_lora_weights=self.beginning(),
            **kind,
        )
        if self.fast and all(plain(module) for module in model.modules() if linear(module)):  # others have own ways
            config._register_custom_module({Linear: LoRALinear})  # PEFT's own door for layers of one's own
        return config

    def check_loftq(self, model) -> None:
        if self.init_lora_weights != "loftq":
            return
        if all(plain(module) for module in model.modules() if linear(module)):
            raise RecipeError(
                "method.init_lora_weights: loftq makes up for what a quantised base has lost, and this one is not"
                " quantised; set model.precision=nf4, or take default"
            )
        if self.use_dora or self.adapter:
            raise RecipeError(
                f"method.init_lora_weights: loftq and {'use_dora' if self.use_dora else 'adapter'} exclude each other;"
                " take default"
            )

    @property
    def rho(self) -> float:
        return self.eva_rho or 2.0

    def check_eva(self) -> None:
        if self.init_lora_weights != "eva":
            if self.eva_rho:
                raise RecipeError("method.eva_rho: is for init_lora_weights=eva; leave it out")
            return
        for other in ("adapter", "target_parameters"):
            if getattr(self, other):
                raise RecipeError(
                    f"method.init_lora_weights: eva and {other} exclude each other; take default, or leave {other} out"
                )

    def begin_among(self, model, rows, forward):
        if self.init_lora_weights != "eva":
            return ""
        from ._eva import begin_at_variance

        return begin_at_variance(model, rows, forward, self.rho)

    def begin_near(self, model, whole):
        if self.init_lora_weights == "loftq":
            from ._loftq import begin_at_loss

            begin_at_loss(model, whole)

    def beginning(self) -> Any:
        """The word that PEFT has for how the update begins."""
        if self.init_lora_weights in ("default", "loftq", "eva"):  # the last two begin anew, once the model is there
            return True
        return f"pissa_niter_{self.pissa_niter}" if self.pissa_niter else self.init_lora_weights

    def targets(self, model, kind) -> Any:
        """The layers to update, each of which is larger than the rank."""
        if not self.target_modules and not self.target_parameters:
            raise RecipeError("method.target_modules: names no layer; take all-linear")
        names: Any = self.target_modules or []
        if names and not (names == ALL and self.target_parameters):  # else the experts are not forgotten
            names = targets(model, names)
        found = layers(model, self.target_modules, kind)
        self.check_patterns(model, found)
        for path, layer in found.items():
            rank = rank_of(path, self.rank_pattern, self.r)
            check_rank(path, layer, rank)
            if self.init_lora_weights == "eva":
                check_directions(path, layer, rank, self.rho)
        return names

    def check_patterns(self, model, found: dict[str, Any]) -> None:
        """Refuse names that would be passed over in silence."""
        there = [name for name, _ in model.named_parameters()]
        for name in self.target_parameters:
            if not any(path.endswith(f".{name}") or path == name for path in there):
                raise RecipeError(f"method.target_parameters: no parameter of the model is named {name}")
        updated = [*found, *self.target_parameters]
        for key in ("rank_pattern", "alpha_pattern"):
            for name in getattr(self, key) or {}:
                if not any(re.match(rf"(.*\.)?({name})$", path) for path in updated):
                    raise RecipeError(f"method.{key}: {name} is no layer that is updated; these are {last(found)}")

    def attach(self, model, heads=()):
        tuned = super().attach(model, heads)
        if not self.detachable:  # what was taken from the weights, to be given back when the update is saved
            vars(tuned)["taken"] = {path: weight.detach().clone() for path, weight in thin(tuned).items()}
        return tuned

    def rate(self, name):
        return self.loraplus_lr_ratio if self.loraplus_lr_ratio and ".lora_B." in name else 1.0

    def save(self, model, folder: Path) -> None:
        if self.detachable:
            super().save(model, folder)
            return
        config = model.peft_config["default"]
        usual = dict(vars(config))
        scale = 2**0.5 if self.use_rslora else 2
        try:
            config.r, config.lora_alpha, config.init_lora_weights = 2 * config.r, scale * config.lora_alpha, True
            config.rank_pattern = {name: 2 * rank for name, rank in config.rank_pattern.items()}
            config.alpha_pattern = {name: scale * alpha for name, alpha in config.alpha_pattern.items()}
            model.save_pretrained(folder, state_dict=given_back(model), save_embedding_layers=False)
        finally:
            vars(config).update(usual)


def thin(model) -> dict[str, Any]:
    """The two matrices of each update, by name."""
    return {name: weight for name, weight in model.state_dict().items() if ".lora_A." in name or ".lora_B." in name}


def given_back(model) -> dict[str, Any]:
    """A model's weights with updates of twice the rank: what was learnt, less what it began with.

    `B A - B0 A0` is the change of the weights as they were before anything was taken from them.
    """
    from torch import cat

    weights = dict(model.state_dict())
    for name, began in model.taken.items():
        a = ".lora_A." in name
        weights[name] = cat([weights[name], began if a else -began], 0 if a else 1)
    return weights


def rank_of(path: str, pattern: dict[str, int] | None, usual: int) -> int:
    """A layer's rank, found as PEFT finds it."""
    found = (rank for name, rank in (pattern or {}).items() if re.match(rf"(.*\.)?({name})$", path))
    return next(found, usual)


def check_rank(path: str, layer: Any, rank: int, key: str = "r") -> None:
    most = min(sizes(layer))
    if rank > most:
        raise RecipeError(
            f"method.{key}: {rank} is more than {path} has, which is {' x '.join(map(str, sizes(layer)))};"
            f" take at most {most}, or name other layers in method.target_modules"
        )


def check_directions(path: str, layer: Any, rank: int, rho: float) -> None:
    """EVA looks for twice as many directions as the largest rank that a layer may come to."""
    most = min(sizes(layer))
    if round(rank * rho) > most or 2 * round(rank * rho) > sizes(layer)[1]:
        raise RecipeError(
            f"method.r: {rank} times an eva_rho of {rho:g} is too much for {path}, which is"
            f" {' x '.join(map(str, sizes(layer)))}; take less of either"
        )
