"""Train some of the model's own parts."""

import re
from typing import ClassVar

from ..config.record import Natural
from ..errors import RecipeError
from .base import Method, largest_list, method


@method("freeze")
class Freeze(Method):
    """Freeze tuning (Lee et al. 2019, arXiv:1911.03090): the last blocks learn, or the first, or parts by their names;
    and a new head if there is one."""

    num_layers: Natural = 2
    """How many blocks learn, counted from the output."""
    first_layers: Natural = 0
    """How many blocks learn, counted from the input."""
    modules: tuple[str, ...] = ()
    """Modules that learn too, by the end of their path or by a pattern, such as [norm] or ['layers[.]0[.]mlp']; with
    num_layers: 0 they alone."""
    embeddings: bool = False
    """The words' embeddings learn too."""

    suits: ClassVar[tuple[float, float]] = (1e-6, 0.0005)
    detachable: ClassVar[bool] = False

    def attach(self, model, heads=()):
        model.requires_grad_(False)
        blocks = self.blocks(model)
        named = [module for name in self.modules for module in self.named(model, name)]
        words = [model.get_input_embeddings()] if self.embeddings else []
        for module in [*blocks, *named, *words, *(model.get_submodule(head) for head in heads)]:
            module.requires_grad_(True)
        if not any(weight.requires_grad for weight in model.parameters()):
            raise RecipeError("method: freeze leaves nothing to learn; raise num_layers, or name modules")
        return model

    def blocks(self, model) -> list:
        blocks = largest_list(model)
        for key, asked in (("num_layers", self.num_layers), ("first_layers", self.first_layers)):
            if asked > len(blocks):
                raise RecipeError(f"method.freeze.{key}: the model has {len(blocks)} blocks (got {asked})")
        chosen = {*range(self.first_layers), *range(len(blocks) - self.num_layers, len(blocks))}
        return [blocks[at] for at in sorted(chosen)]

    def named(self, model, name: str) -> list:
        try:
            pattern = re.compile(rf"(.*\.)?({name})")
        except re.error as error:
            raise RecipeError(f"method.modules: {name} is no pattern ({error})") from None
        found = [module for path, module in model.named_modules() if path and pattern.fullmatch(path)]
        if not found:
            known = sorted({path.rpartition(".")[2] for path, _ in model.named_modules() if path} - {""})
            known = [word for word in known if not word.isdigit()]
            raise RecipeError(f"method.modules: no module of the model is named {name}; it has {', '.join(known)}")
        return found
