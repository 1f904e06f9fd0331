"""A new process that loads what cells have saved, and writes down what it hears: `python -m tunesmith.grid.reload`.

Every line on stdin names a cell's folder. It is one process for all of them, for its start would take most of the time.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from ..objectives.base import Beside
from ..precision.base import precision

SAID, HEARD, ASKED, FAILED = "said.safetensors", "heard.safetensors", "asked.json", "failed.txt"
"""What the trained model said, what the loaded one says, of which ids, and what went wrong instead."""


def hear(folder: Path) -> dict[str, Any]:
    """What a saved cell says: loaded as its run would load it, and where it can be merged, merged and not."""
    import torch

    from ..model.adapter import merged
    from ..model.load import hushed, load_model, load_tuned
    from .plain import classes

    asked = json.loads((folder / ASKED).read_text(encoding="utf-8"))
    base, outputs, ids = Path(asked["base"]), tuple(asked["outputs"]), torch.tensor([asked["ids"]])
    outputs = Beside(outputs) if asked["beside"] else outputs

    def says(model) -> torch.Tensor:
        with torch.no_grad():
            if asked["beside"]:
                return classes(model.eval(), ids)[0].contiguous()
            found = model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
        return (found if outputs else found[-ids.shape[1] :]).float().contiguous()

    heard = {"loaded": says(load_tuned(folder, base, precision[asked["precision"]](), outputs))}
    if asked["merges"]:  # into whole weights: into quantised ones nobody should
        heard["apart"] = says(load_tuned(folder, base, precision["fp32"](), outputs))
        with hushed():
            whole, _ = load_model(base, precision["fp32"](), outputs)
            heard["merged"] = says(merged(whole, folder / "adapter"))
    return heard


def main() -> None:
    from safetensors.torch import save_file

    for line in sys.stdin:
        folder = Path(line.rstrip("\n"))
        try:
            save_file(hear(folder), folder / HEARD)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this cell's, and the others go on
            (folder / FAILED).write_text(f"{type(error).__name__}: {error}", encoding="utf-8")


if __name__ == "__main__":
    main()
