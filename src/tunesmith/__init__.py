"""Tunesmith: fine-tune language models, from a recipe to a result that has been measured."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .run import Data, Eval, Model, Run, Train
    from .training.train import Result, train
    from .tuned import Tuned, load_run

HOMES = {
    "Run": ".run",
    "Model": ".run",
    "Data": ".run",
    "Train": ".run",
    "Eval": ".run",
    "train": ".training.train",
    "Result": ".training.train",
    "load_run": ".tuned",
    "Tuned": ".tuned",
}

__all__ = ["Data", "Eval", "Model", "Result", "Run", "Train", "Tuned", "load_run", "train"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for, so that `import tunesmith` loads nothing heavy."""
    if name not in HOMES:
        raise AttributeError(f"module 'tunesmith' has no attribute '{name}'")
    value = getattr(import_module(HOMES[name], __name__), name)
    globals()[name] = value
    return value
