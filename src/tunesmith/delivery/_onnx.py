"""A model as an ONNX graph, by transformers' own exporter, and such a graph asked as a model is.

The weights lie beside the graph, in model.onnx.data: one file of protobuf holds 2 GB at most.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from ..errors import RecipeError
from ..model.load import first_line, quiet

GRAPH = "model.onnx"


def write_onnx(model: Any, tokenizer: Any, folder: Path) -> None:
    """Trace a model of ordinary weights. Raises RecipeError for one that cannot be traced."""
    from transformers.exporters.configs import OnnxConfig
    from transformers.exporters.exporter_onnx import OnnxExporter

    rows, length = torch.export.Dim("rows"), torch.export.Dim("length")
    seen = torch.tensor([[1, 2, 3, 4, 5], [5, 4, 3, 2, 1]])  # two rows: one would be taken for always one
    given: dict[str, Any] = {"input_ids": seen, "attention_mask": torch.ones_like(seen)}
    shapes = {name: {0: rows, 1: length} for name in given}
    given["use_cache"] = False
    config = OnnxConfig(dynamic_shapes=shapes, prefer_deferred_runtime_asserts_over_guards=True)
    with silent():
        try:
            made = OnnxExporter().export(model.eval(), given, config)
        except (RuntimeError, ValueError, TypeError, NotImplementedError, torch.onnx.OnnxExporterError) as error:
            raise RecipeError(
                f"--to onnx: {type(model).__name__} cannot be traced ({first_line(error)}); deliver it with --to merged"
            ) from error
        made.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@contextmanager
def silent() -> Iterator[None]:
    """Within it nothing is said of torch's own ways, nor printed of how far the exporter has come."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with quiet(), warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


class Graph:
    """An ONNX graph, by ONNX Runtime on the processor."""

    device = "cpu"

    def __init__(self, file: Path) -> None:
        from onnxruntime import InferenceSession  # pyright: ignore[reportMissingImports]

        self.session = InferenceSession(str(file), providers=["CPUExecutionProvider"])

    def eval(self) -> Graph:
        return self

    def __call__(self, **given: Tensor) -> SimpleNamespace:
        [logits] = self.session.run(["logits"], {name: value.numpy() for name, value in given.items()})
        return SimpleNamespace(logits=torch.from_numpy(logits))
