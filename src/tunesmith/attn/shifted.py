"""LongLoRA's attention, for training on texts too long for all to see all."""

from typing import Annotated, Any

from annotated_types import Ge, MultipleOf

from ..errors import RecipeError
from .base import Attention, attn


@attn("shifted")
class Shifted(Attention):
    """LongLoRA's shifted sparse attention (Chen et al. 2023, arXiv:2309.12307): in training a token sees its group
    alone, and half of the heads have groups that begin half a group earlier; asked, the model attends to all. Nothing
    is rolled round, so that no first token sees a last one. The paper trains embeddings and norms too, by
    method.modules_to_save."""

    group_size: Annotated[int, Ge(2), MultipleOf(2)] = 2048
    """Tokens that see each other; the paper takes a quarter of the length."""

    def change(self, config: Any) -> None:
        text = config.get_text_config()
        windows = getattr(text, "sliding_window", None) or getattr(text, "attention_chunk_size", None)
        if windows or {*(getattr(text, "layer_types", None) or [])} - {"full_attention"}:
            raise RecipeError(
                f"model.attn: shifted groups the tokens of models in which all see all, and {text.model_type} has"
                " windows of its own; take auto"
            )
        text.shifted_group_size = self.group_size
