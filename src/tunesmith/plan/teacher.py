"""The model that a run learns from (objective.teacher): it is held beside for the whole run, and reads all that the run
does."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from ..errors import Refusal
from ..methods.full import Full
from ..model.linear_loss import CHUNK_BYTES
from ..model.teacher import SETTING
from ..objectives.sft import SFT
from ..precision.plain import Auto
from ..run import Model, Run
from .known import Found, find


def taught_by(run: Run, assumed: list[str]) -> tuple[Run, Found] | None:
    """The teacher as a run of its own, of which no step is taken, if there is one; `assumed` is told what is not known
    of it."""
    if "divergence" not in run.objective.looks():
        return None
    name = run.objective.models().get(SETTING)
    if name is None:
        assumed.append(f"{SETTING} is not named: what it takes is not counted")
        return None
    try:
        file = Path(name).expanduser() / "config.json"
        found = looked_up(name, file.stat().st_mtime_ns if file.is_file() else 0)
    except Refusal as error:
        why = str(error).removeprefix("model.path: ").partition(": ")[0].partition(";")[0]
        assumed.append(f"{SETTING}: {why}: the memory and the time that it takes are not counted")
        return None
    assumed += [f"{SETTING}: {one}" for one in found.assumed]
    train = replace(run.train, gradient_checkpointing=False, bf16=False, fp16=False)
    return replace(run, model=Model(path=name, precision=Auto()), method=Full(), objective=SFT(), train=train), found


@lru_cache(4)
def looked_up(name: str, changed: int) -> Found:
    """The same config for all plans that are tried to make a run fit, so that its blank is made once; of a file, as
    long as that stays what it is."""
    return find(name)


PIECES = 4
"""As many arrays of logits as a comparison of two models holds beside those of one (model/divergence.py)."""


def compared(tokens: float, words: int) -> float:
    """Bytes of what is made of the logits of some tokens, when those of two models are held against each other."""
    return PIECES * min(float(CHUNK_BYTES), 4.0 * tokens * words)
