"""How answers are written, in a dialogue by hand; light, for help shows it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Gt, Le

from ..config.record import Count, Natural, record
from ..errors import RecipeError

if TYPE_CHECKING:
    from ..rollout.each import Draw

Penalty = Annotated[float, Ge(-2), Le(2)]
ENOUGH_BEAMS, ENOUGH_WORDS, ENOUGH_MASS, LEAST_CHANCE = 4, 50, 0.9, 0.1
"""What ways of writing are compared with, where nothing else is set."""


@record
class Decoding:
    """How answers are written."""

    max_new_tokens: Count = 256
    """Longest answer, in tokens."""
    temperature: Annotated[float, Ge(0)] = 0.0
    """0 takes the likeliest word; above it, words are drawn."""
    top_k: Natural = 0
    """Draw among so many of the likeliest (Fan et al. 2018, arXiv:1805.04833); 0 for all."""
    top_p: Annotated[float, Gt(0), Le(1)] = 1.0
    """Draw among the likeliest that together reach this (Holtzman et al. 2019, arXiv:1904.09751)."""
    min_p: Annotated[float, Ge(0), Le(1)] = 0.0
    """Draw among words at least so likely beside the likeliest (Nguyen et al. 2024, arXiv:2407.01082)."""
    presence_penalty: Penalty = 0.0
    """Against words that the answer has."""
    frequency_penalty: Penalty = 0.0
    """The same, for each time that it has them."""
    repetition_penalty: Annotated[float, Ge(0.01), Le(10)] = 1.0
    """Divides what speaks for words that prompt or answer have (CTRL, arXiv:1909.05858)."""
    beams: Count = 1
    """Above 1, so many beginnings are kept and the likeliest whole answer is taken (beam search); nothing is drawn."""
    seed: int | None = None
    """The same seed draws the same words, as it does of a server."""

    @property
    def draw(self) -> Draw:
        from ..rollout.each import Draw

        names = (
            "temperature", "top_k", "top_p", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty",
        )  # fmt: skip
        return Draw(**{name: getattr(self, name) for name in names})

    def refuse(self) -> None:
        """Refuse settings that would be passed over in silence."""
        if self.beams > 1 and (self.temperature or self.presence_penalty or self.frequency_penalty):
            raise RecipeError(
                "beams: above 1 nothing is drawn, and of penalties it knows repetition_penalty; set temperature=0"
                " presence_penalty=0 frequency_penalty=0, or beams=1"
            )


def ways(now: Decoding) -> dict[str, Decoding]:
    """The ways of writing that are compared, each with what is set of it."""
    plain = replace(now, temperature=0.0, top_k=0, top_p=1.0, min_p=0.0, beams=1)
    drawn = replace(plain, temperature=now.temperature or 1.0)
    beams = now.beams if now.beams > 1 else ENOUGH_BEAMS
    words, mass = now.top_k or ENOUGH_WORDS, now.top_p if now.top_p < 1 else ENOUGH_MASS
    least = now.min_p or LEAST_CHANCE
    return {
        "greedy": plain,
        f"beams={beams}": replace(plain, beams=beams, presence_penalty=0.0, frequency_penalty=0.0),
        f"top_k={words}": replace(drawn, top_k=words),
        f"top_p={mass:g}": replace(drawn, top_p=mass),
        f"min_p={least:g}": replace(drawn, min_p=least),
    }
