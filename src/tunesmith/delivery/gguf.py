"""One file for llama.cpp, Ollama and LM Studio."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from ..errors import RecipeError
from .base import Into, Way, way

if TYPE_CHECKING:
    from .source import Source

Numbers = Literal["f32", "bf16", "f16", "q8_0", "q5_0", "q4_1", "q4_0"]
APART: dict[str, float] = {
    "f32": 1e-5, "f16": 1e-3, "bf16": 1e-2, "q8_0": 2e-2, "q5_0": 0.1, "q4_1": 0.3, "q4_0": 0.3,
}  # fmt: skip
"""Nats a token that rounding to so many bits may cost."""


@way("gguf")
class Gguf(Way):
    """One GGUF file with the weights, the words and the template."""

    library: ClassVar[str] = "gguf"

    quantization: Numbers = "q8_0"
    """How its numbers are written: f32, bf16 and f16 whole, others in blocks of 32 with some 8, 5 or 4 bits each."""
    into: Into = "trained_on"
    """Of a run over quantised weights, into which of them the adapter is merged; see `merged`."""

    def check(self, source: Source) -> None:
        from ..model.foreign import read_config
        from ..model.hub import locate
        from ._gguf import refuse_unknown

        if source.labels or source.tuned.scores:
            raise RecipeError(
                f"{source.tuned.folder.path}: --to gguf writes models that write; this run scores or tells classes"
                " apart; deliver it with --to merged"
            )
        source.refuse_unmergeable("a GGUF file holds a whole model")
        folder = locate(source.tuned.run.model.path) if source.adapter else source.tuned.folder.path / "model"
        refuse_unknown(read_config(folder), source.tokenizer, self.quantization)

    def write(self, source: Source, folder: Path) -> None:
        from ._gguf import write_gguf

        model, name = source.whole(self.into), source.tuned.folder.path.resolve().name
        write_gguf(model, source.tokenizer, folder / f"{name}-{self.quantization}.gguf", self.quantization, name)

    def apart(self) -> float:
        return APART[self.quantization]
