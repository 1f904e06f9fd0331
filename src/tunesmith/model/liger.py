"""Norms and gates by Liger's kernels (Hsu et al. 2024, arXiv:2410.10989), on a GPU.

Liger's own way in exchanges classes of transformers for the whole process, so that later models have them too. Here
only the lean modules of one model are exchanged, each once it is tried. The head has a way of its own (`linear_loss`).
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..errors import BadEnvironment, RecipeError, Refusal
from .lean import LeanGate, LeanNorm

Word = Literal["auto", "on", "off"]
PACKAGE = "liger_kernel"


def wanted(word: Word) -> bool:
    """Whether Liger's kernels are to be used here; refused if they are asked for and cannot be."""
    lacks = ""
    refusal: type[Refusal] = RecipeError
    if not torch.cuda.is_available():
        lacks = "on needs a GPU, since its kernels are written for one; take auto"
    elif find_spec(PACKAGE) is None:
        refusal = BadEnvironment
        lacks = f"on needs {PACKAGE}, which is not installed: pip install 'tunesmith[liger]'"
    if word == "on" and lacks:
        raise refusal(f"model.liger: {lacks}")
    return word != "off" and not lacks


def make_liger(model: nn.Module) -> int:
    """Exchange a model's lean modules for Liger's, where these give the same. The number of modules exchanged."""
    lean = {name: one for name, one in model.named_modules() if isinstance(one, LeanNorm | LeanGate)}
    done = 0
    for name, one in lean.items():
        made = by_liger(one)
        if made is not None:
            above, _, last = name.rpartition(".")
            setattr(model.get_submodule(above), last, made.train(one.training))
            done += 1
    return done


def by_liger(lean: LeanNorm | LeanGate) -> nn.Module | None:
    """What computes the same by Liger's kernels, tried on what may come."""
    weight: Any = next(lean.parameters())
    if isinstance(lean, LeanNorm):
        made = LigerNorm(lean.weight, lean.variance_epsilon)
    else:
        made = LigerGate(dict(lean.named_children()))
    x = torch.randn(2, 3, weight.shape[-1], device=weight.device).to(weight.dtype)
    with torch.no_grad():
        slack = 1e-4 if weight.dtype == torch.float32 else 2e-2
        return made if torch.allclose(made(x), lean(x), rtol=slack, atol=slack) else None


class LigerNorm(LeanNorm):
    """A lean norm's weight, Liger's kernel."""

    def forward(self, x: Tensor) -> Tensor:
        from liger_kernel.ops import LigerRMSNormFunction  # pyright: ignore[reportMissingImports] - an extra

        return LigerRMSNormFunction.apply(x, self.weight, self.variance_epsilon, 0.0, "llama", False)


class LigerGate(LeanGate):
    """A lean gate's layers, Liger's kernel between them."""

    def forward(self, x: Tensor) -> Tensor:
        from liger_kernel.ops import LigerSiLUMulFunction  # pyright: ignore[reportMissingImports] - an extra

        parts: Any = self._modules
        return parts["down_proj"](LigerSiLUMulFunction.apply(parts["gate_proj"](x), parts["up_proj"](x)))
