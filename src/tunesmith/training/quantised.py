"""What cannot be trained over quantised weights, said before they are read."""

from __future__ import annotations

from pathlib import Path

from ..errors import RecipeError
from ..methods.base import Method
from ..model.foreign import refuse_code
from ..model.liger import wanted
from ..model.stored import refuse_stored
from ..run import Run


def refuse_quantised(run: Run, base: Path | None = None) -> None:
    """Refuse a precision that cannot be had here, and a method that would change quantised weights.

    With the folder of the model, those that are quantised on disk are looked at too.
    """
    precision = run.model.precision
    precision.check()
    run.model.attn.check()
    wanted(run.model.liger)
    if precision.quantised:
        refuse_method(run.method, f"model.precision={precision.name}")
    said = refuse_code(base) if base else {}
    if base and said:
        refuse_stored(base, said, precision, run.model.adapters)
        refuse_method(run.method, f"{base}, quantised by {said['quant_method']},")


def refuse_method(method: Method, what: str) -> None:
    if not method.detachable:
        raise RecipeError(
            f"method: {what} holds weights in few bits, which cannot learn, and {method.name} trains or changes them;"
            " take an adapter, such as method=lora with its usual beginning, or model.precision=bf16"
        )
