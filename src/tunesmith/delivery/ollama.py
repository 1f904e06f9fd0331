"""A folder for `ollama create`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..data.rendering.dialogue import Writer
from ..data.rendering.turns import end_of_turn
from ._go_template import around
from .base import way
from .gguf import Gguf

if TYPE_CHECKING:
    from .source import Source


@way("ollama")
class Ollama(Gguf):
    """A GGUF file and a Modelfile with the model's own template and the tokens at which it stops."""

    def check(self, source: Source) -> None:
        super().check(source)
        around(Writer(source.tokenizer))

    def write(self, source: Source, folder: Path) -> None:
        super().write(source, folder)
        [file] = folder.glob("*.gguf")
        (folder / "Modelfile").write_text(modelfile(source.tokenizer, file.name), encoding="utf-8")


def modelfile(tokenizer, weights: str) -> str:
    """What `ollama create NAME -f Modelfile` reads."""
    writer = Writer(tokenizer)
    template = around(writer).in_go()
    stops = dict.fromkeys(filter(None, [tokenizer.eos_token, end_of_turn(tokenizer)]))
    lines = [f"FROM ./{weights}", f'TEMPLATE """{template}"""']
    return "\n".join([*lines, *(f'PARAMETER stop "{stop}"' for stop in stops), ""])
