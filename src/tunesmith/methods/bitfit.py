"""Train the model's biases."""

from typing import ClassVar

from ..errors import RecipeError
from .base import Method, method


@method("bitfit")
class BitFit(Method):
    """BitFit (Ben Zaken et al. 2021, arXiv:2106.10199): the biases learn and nothing else, in models that have some."""

    terms: tuple[str, ...] = ()
    """Layers whose biases learn, by the end of their names, such as [query, intermediate.dense]; all unless given."""

    suits: ClassVar[tuple[float, float]] = (0.0001, 0.01)
    detachable: ClassVar[bool] = False

    def attach(self, model, heads=()):
        model.requires_grad_(False)
        biases = {name: weight for name, weight in model.named_parameters() if name.endswith("bias")}
        if not biases:
            raise RecipeError(
                f"method: bitfit trains biases, and {type(model).__name__} has none here; take layernorm or ia3"
            )
        ends = tuple(f"{term}.bias" for term in self.terms) or ("bias",)
        for term, end in zip(self.terms, ends, strict=False):
            if not any(name.endswith(end) for name in biases):
                raise RecipeError(
                    f"method.terms: no layer named {term} has a bias; some are {', '.join(list(biases)[:8])}"
                )
        for name, weight in biases.items():
            weight.requires_grad_(name.endswith(ends))
        for head in heads:
            model.get_submodule(head).requires_grad_(True)
        return model
