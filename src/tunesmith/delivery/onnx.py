"""A graph for ONNX Runtime, and for whatever else reads ONNX."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ..errors import BadEnvironment
from .base import Into, Way, way

if TYPE_CHECKING:
    from .source import Source

NEEDED = ("onnx", "onnxscript", "onnxruntime")
EXPORTER = "transformers.exporters"


@way("onnx")
class Onnx(Way):
    """The whole model as one graph in 32 bits, from `input_ids` and `attention_mask`, of any number and length of rows,
    to `logits`: of the next word behind every token, or of the classes."""

    into: Into = "trained_on"
    """Of a run over quantised weights, into which of them the adapter is merged; see `merged`."""

    library: ClassVar[str] = "onnx"

    def check(self, source: Source) -> None:
        if missing := [package for package in NEEDED if find_spec(package) is None]:
            raise BadEnvironment(f"--to onnx: needs {', '.join(missing)}; pip install 'tunesmith[onnx]'")
        if find_spec(EXPORTER) is None:
            raise BadEnvironment(f"--to onnx: needs {EXPORTER}, which this version lacks; pip install -U transformers")
        source.refuse_unmergeable("an ONNX graph holds a whole model")

    def write(self, source: Source, folder: Path) -> None:
        from ._onnx import write_onnx

        write_onnx(source.whole(self.into), source.tokenizer, folder)

    def apart(self) -> float:
        return 1e-5
