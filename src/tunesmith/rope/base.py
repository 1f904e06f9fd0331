"""What a rope scaling is: other frequencies of a model's rotary positions, set before the model is made."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Any, ClassVar

from annotated_types import Ge

from ..config.record import record
from ..config.registry import Registry
from ..errors import RecipeError

Factor = Annotated[float, Ge(1)]


class RopeScaling:
    """How positions are scaled."""

    name: ClassVar[str]

    def change(self, config: Any) -> None:
        """Have a model of this config made with such positions."""

    def check(self, config: Any, longest: int) -> None:
        """Refuse to train a model of this config on texts of so many tokens, if it cannot be."""


@record
class Scaled(RopeScaling):
    lengthens: ClassVar[bool] = True
    """Whether the model is said to know that much longer texts."""

    factor: Factor = 2.0
    """How many times longer texts may be than those that the model was made for."""

    def change(self, config: Any) -> None:
        text = config.get_text_config()
        rope = getattr(text, "rope_parameters", None)
        if not isinstance(rope, dict) or any(isinstance(part, dict) for part in rope.values()):
            raise RecipeError(
                f"model.rope_scaling: {text.model_type} has no rotary positions of one kind that could be scaled; leave"
                " it out"
            )
        if rope.get("rope_type", "default") != "default":
            raise RecipeError(
                f"model.rope_scaling: the model's positions are scaled already, by {rope['rope_type']}; leave it out"
            )
        known = text.max_position_embeddings
        options = {field.name: getattr(self, field.name) for field in fields(self)}
        asked = {key: value for key, value in options.items() if value is not None}
        text.rope_parameters = rope | asked | {"rope_type": self.name} | self.original(known)
        if self.lengthens:
            text.max_position_embeddings = round(known * self.factor)

    def original(self, known: int) -> dict[str, int]:
        """The length of texts that the model was made for, where the frequencies depend on it."""
        return {}


rope_scaling: Registry[RopeScaling] = Registry("rope_scaling", "tunesmith.rope")
