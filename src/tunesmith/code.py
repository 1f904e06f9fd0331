"""A function out of a file of the user's own, which is run: the recipe names it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from traceback import extract_tb
from typing import Any

from .errors import RecipeError


def function_of(file: str, name: str, key: str) -> Callable[..., Any]:
    """The function of this name. `key` is where the recipe names the file; errors begin with it."""
    where = f"{key}: {file}"
    if not Path(file).is_file():
        raise RecipeError(f"{where}: no such file; name the Python file that has the function {name}")
    spec = spec_from_file_location(f"tunesmith_process_{Path(file).stem}", file)
    if spec is None or spec.loader is None:
        raise RecipeError(f"{where}: is not a Python file; its name must end with .py")
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and such look for the module of what they decorate
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise RecipeError(f"{where}{line(error, file)} cannot be loaded: {said(error)}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise RecipeError(f"{where}: has no function {name}; name one that is in it")
    return function


def line(error: BaseException, file: str) -> str:
    """The last line of the user's file that led to an error."""
    if isinstance(error, SyntaxError) and error.filename == file:
        return f":{error.lineno}"
    ours = {file, str(Path(file)), str(Path(file).absolute())}  # which of them Python names differs
    lines = [frame.lineno for frame in extract_tb(error.__traceback__) if frame.filename in ours]
    return f":{lines[-1]}" if lines else ""


def said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".removesuffix(": ")
