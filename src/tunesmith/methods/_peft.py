"""Methods that PEFT has: its layers, its names, its files; the options checked before it sees them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..config.record import record
from ..errors import RecipeError
from .base import Method, largest_list

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn

Names = tuple[str, ...] | str
ALL = "all-linear"
SIZES = {"token_dim", "num_transformer_submodules", "num_attention_heads", "num_layers"}
"""What PEFT notes of the model beside a soft prompt; the model's own are taken."""


@record
class Peft(Method):
    """A method by one of PEFT's configs."""

    peft_type: ClassVar[str]
    """PEFT's own name of the method."""
    obeyed: ClassVar[set[str]] = set()
    """The keys of a saved config that decide what is computed, beside those that all methods have."""
    unread: ClassVar[set[str]] = set()
    """Keys that tell nothing that the weights depend on, once they are there."""

    modules_to_save: tuple[str, ...] = ()
    """Modules that are trained whole beside it, and saved with it, such as [lm_head]."""
    adapter: str | None = None
    """Go on from an adapter: its folder, or that of the run that made it. Method and options must be those that it was
    made with; to train a new one on top of it, name it in model.adapters instead."""

    @classmethod
    def family(cls) -> Any:
        """The class of PEFT's config."""
        from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

        return PEFT_TYPE_TO_CONFIG_MAPPING[cls.peft_type]  # pyright: ignore[reportArgumentType] - a text, as PEFT's are

    def config(self, model, kind: dict[str, Any]) -> PeftConfig:
        """PEFT's config; `kind` has what is the same for all: the task and what is saved whole."""
        raise NotImplementedError

    def attach(self, model, heads=()):
        from peft import get_peft_model

        for name in self.modules_to_save:
            if not matching(model, (name,)):
                raise RecipeError(f"method.modules_to_save: {unknown(model, name, 'module')}")
        whole = [*heads, *(name for name in self.modules_to_save if name not in heads)]
        kind = {"task_type": "CAUSAL_LM" if model.can_generate() else "SEQ_CLS"} | (
            {"modules_to_save": whole} if whole else {}
        )
        config = self.config(model, kind)
        try:
            return switchable(get_peft_model(model, config))
        except ValueError as error:
            raise RecipeError(f"method: {self.name} does not fit {type(model).__name__}: {sentence(error)}") from None

    def save(self, model, folder: Path) -> None:
        model.save_pretrained(folder, save_embedding_layers=False)


WRITING = "prepare_inputs_for_generation"


def switchable(tuned: Any) -> Any:
    """A model under one of PEFT's methods. Where PEFT switches a soft prompt off, it exchanges a way of writing too:
    what models that only tell what texts are do not have."""
    if tuned.active_peft_config.is_prompt_learning and not hasattr(tuned.base_model, WRITING):
        setattr(tuned.base_model, WRITING, None)
    return tuned


def as_many(words: list[int], count: int, key: str) -> list[int]:
    """So many tokens of a text: repeated, or cut."""
    if not words:
        raise RecipeError(f"method.{key}: is empty; give words, or leave it out")
    return (words * -(-count // len(words)))[:count]


def sentence(error: Exception) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")


def linear(module: Any) -> bool:
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    quantised = hasattr(module, "in_features") and hasattr(module, "dequantize")  # HQQ's are modules of their own kind
    return isinstance(module, Linear | Conv1D) or quantised


def norm(module: Any) -> bool:
    """Whether a module scales by weights of its own, one a feature, and holds nothing else."""
    weight = getattr(module, "weight", None)
    return "norm" in type(module).__name__.lower() and getattr(weight, "ndim", 0) == 1


def matching(model, names: Names) -> dict[str, nn.Module]:
    """The modules that names mean, as PEFT reads them: ends of paths, or one pattern for the whole path."""
    if isinstance(names, str):
        pattern = re.compile(names)
        return {path: module for path, module in model.named_modules() if pattern.fullmatch(path)}
    ends = tuple(f".{name}" for name in names)
    return {path: module for path, module in model.named_modules() if path in names or path.endswith(ends)}


def last(paths: Iterable[str]) -> str:
    """The last names of paths, as they would stand in a recipe."""
    return ", ".join(sorted({path.rpartition(".")[2] for path in paths}))


def unknown(model, name: str, what: str) -> str:
    kinds = {"linear layer": linear, "norm": norm}
    known = [path for path, module in model.named_modules() if path and kinds.get(what, bool)(module)]
    return f"no {what} of the model is named {name}; it has {last(path for path in known if not path[-1].isdigit())}"


def targets(model, names: Names, key: str = "target_modules", what: str = "linear layer") -> Any:
    """`names` as PEFT takes them, once each is known to mean a layer of the right kind."""
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    key, fits = f"method.{key}", norm if what == "norm" else linear
    if names == ALL:
        refuse_experts(model)
        found = layers(model, ALL, {"task_type": "CAUSAL_LM" if model.can_generate() else "SEQ_CLS"})
        known = all(isinstance(layer, Linear | Conv1D) for layer in found.values())
        return ALL if known else list(found)  # PEFT's word for all of them misses those of other kinds
    try:
        for name in (names,) if isinstance(names, str) else names:
            found = matching(model, names if isinstance(names, str) else (name,))
            if not found:
                raise RecipeError(f"{key}: {unknown(model, name, what)}")
            wrong = next((path for path, module in found.items() if not fits(module)), None)
            if wrong:
                raise RecipeError(f"{key}: {name} means {wrong}, which is no {what} but {type(found[wrong]).__name__}")
    except re.error as error:
        raise RecipeError(f"{key}: {names} is neither {ALL} nor a pattern ({error})") from None
    return names if isinstance(names, str) else list(names)


def in_blocks(model, names: Iterable[str]) -> str:
    """A pattern for modules by their names within each block."""
    blocks = largest_list(model)
    path = next(path for path, module in model.named_modules() if module is blocks)
    return rf"{re.escape(path)}\.\d+\.({'|'.join(map(re.escape, names))})"


def layers(model, names: Names, kind: dict[str, Any]) -> dict[str, Any]:
    """The linear layers that checked names mean, but for those that are trained whole."""
    whole = tuple(kind.get("modules_to_save", ()))
    whole += ("classifier", "score") if kind["task_type"] == "SEQ_CLS" else ()  # PEFT's own addition
    if names != ALL:
        found = matching(model, names)
    else:
        head = getattr(model, "get_output_embeddings", lambda: None)()
        found = {path: module for path, module in model.named_modules() if linear(module) and module is not head}
    return {path: module for path, module in found.items() if not path.endswith(whole)}


def without_compiler() -> None:
    """Where there is no GPU, tell PEFT's BOFT that it has no kernel for one: it would call a compiler to find out."""
    from peft.tuners.boft import layer
    from torch.cuda import is_available

    if not is_available() and layer._FBD_CUDA is None:
        layer._FBD_CUDA = False


def refuse_experts(model) -> None:
    """Refuse all-linear where much of the model would be left out in silence: experts kept as one parameter."""
    fused = [path for path, weight in model.named_parameters() if weight.ndim == 3 and "expert" in path]
    if fused:
        raise RecipeError(
            f"method.target_modules: {ALL} does not reach the experts of {type(model).__name__}, which are parameters"
            f" such as {fused[0]}; name layers, and with lora the experts as target_parameters: [{last(fused)}]"
        )
