"""Rounding a merged model to few bits with gptqmodel, by what it makes of rows that it was trained on."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ..model.load import save_whole

if TYPE_CHECKING:
    from .gptq import FewBits
    from .source import Source


def write_quantised(way: FewBits, source: Source, folder: Path) -> None:
    """Round the merged model, and write it as transformers loads it."""
    rows = calibration(source, way.samples)  # before weights are merged: data that is not there any more ends it here
    with TemporaryDirectory() as place, redirect_stdout(sys.stderr):  # its progress is no part of what --json says
        save_whole(source.whole(way.into), source.tokenizer, Path(place), "fp16")
        rounded(Path(place), way, rows, folder)
    source.tokenizer.save_pretrained(folder)


def rounded(whole: Path, way: FewBits, rows: list[dict[str, list[int]]], folder: Path) -> None:
    """A folder of whole weights as one of rounded weights."""
    from gptqmodel import GPTQModel, QuantizeConfig  # pyright: ignore[reportMissingImports]
    from gptqmodel.quantization.config import FORMAT, METHOD  # pyright: ignore[reportMissingImports]

    said: dict[str, Any] = {"bits": way.width(), "group_size": way.group_size, "desc_act": False, "device": "cuda"}
    if way.name == "awq":
        said |= {"method": METHOD.AWQ, "format": FORMAT.GEMM, "sym": False}
    model = GPTQModel.load(str(whole), QuantizeConfig(**said))
    model.quantize(rows, batch_size=1, calibration_data_min_length=1)
    model.save(str(folder))


def calibration(source: Source, most: int) -> list[dict[str, list[int]]]:
    """Rows of the training data, as the run learnt from them, evenly over all of it."""
    from ..data.keeping.material import prepare
    from ..data.reading.places import places
    from ..model.hub import locate_data

    run = source.tuned.run
    sequences = prepare(run, places(run.data, locate_data), source.tokenizer, lambda _: None).sequences
    count = min(most, len(sequences))
    chosen = [sequences[n * len(sequences) // count].ids for n in range(count)]
    return [{"input_ids": list(ids), "attention_mask": [1] * len(ids)} for ids in chosen]
