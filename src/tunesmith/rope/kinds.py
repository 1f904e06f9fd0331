"""The ways of scaling that transformers knows and that need no measuring first."""

from typing import ClassVar

from ..config.record import NonNegative, Positive
from ..errors import RecipeError
from .base import RopeScaling, Scaled, rope_scaling


@rope_scaling("unchanged")
class Unchanged(RopeScaling):
    """Positions as the model's own config has them."""


@rope_scaling("linear")
class Linear(Scaled):
    """Position interpolation (Chen et al. 2023, arXiv:2306.15595): all positions are divided by the factor."""


@rope_scaling("dynamic")
class Dynamic(Scaled):
    """Dynamic NTK (bloc97 2023): slow frequencies change as soon as a text is longer than the model was made for. For
    asking: texts so long are not trained on, since what is computed would depend on earlier ones."""

    lengthens: ClassVar[bool] = False

    def check(self, config, longest):
        known = config.get_text_config().max_position_embeddings
        if longest > known:
            raise RecipeError(
                f"model.rope_scaling: dynamic does not train on texts longer than the {known} tokens that the model was"
                f" made for; set data.max_length={known}, or take yarn"
            )


@rope_scaling("yarn")
class Yarn(Scaled):
    """YaRN (Peng et al. 2023, arXiv:2309.00071): slow frequencies are interpolated, fast ones stay, attention is
    sharpened."""

    beta_fast: Positive = 32.0
    """Frequencies with more turns than this within the model's length stay."""
    beta_slow: Positive = 1.0
    """Frequencies with fewer turns than this are interpolated wholly."""
    attention_factor: Positive | None = None
    """What queries and keys are multiplied by; 0.1 ln(factor) + 1 unless given."""

    def original(self, known):
        return {"original_max_position_embeddings": known}


@rope_scaling("llama3")
class Llama3(Scaled):
    """As Llama 3.1 was made longer (Grattafiori et al. 2024, arXiv:2407.21783): slow frequencies are divided by the
    factor, fast ones stay, those between are in between."""

    low_freq_factor: NonNegative = 1.0
    """Frequencies with fewer turns than this within the model's length are slow."""
    high_freq_factor: Positive = 4.0
    """Frequencies with more turns than this are fast."""

    def original(self, known):
        return {"original_max_position_embeddings": known}
