"""The command line. What a command needs is imported when it is run.

Exit codes: 0 done; the others stand in tunesmith/errors.py.
"""

import logging
import os
import signal
import sys
from contextlib import suppress
from traceback import format_exception
from typing import Any

import typer

from ..errors import BadEnvironment, Interrupted, Refusal
from ..files import full
from ..secret import masked
from ..start import begin_again
from . import (
    adapters,
    advise,
    chat,
    compare,
    data,
    doctor,
    export,
    faults,
    feedback,
    grid,
    judge,
    plan,
    recipes,
    reproduce,
    runs,
    serve,
    train,
)

app = typer.Typer(
    name="tunesmith",
    help="Fine-tune a language model: from a recipe to a result that has been measured.",
    epilog="Exit codes: 0 ok, 1 failed while running, 2 usage or recipe, 3 data, 4 out of memory, 5 diverged,"
    " 6 environment, 7 checkpoint unusable, 75 stopped and saved, 130 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for module in (
    train,
    chat,
    plan,
    advise,
    compare,
    data,
    recipes,
    runs,
    adapters,
    export,
    judge,
    reproduce,
    doctor,
    faults,
    grid,
    serve,
    feedback,
):
    module.register(app)

TRAINS = {"train", "quickstart", "resume", "reproduce", "doctor", "--trial"}


@app.callback()
def options(debug: bool = typer.Option(False, "--debug", help="Show where an error happened.")) -> None:
    """Options of every command; --debug is read by main(), wherever it stands."""


def main(words: list[str] | None = None) -> None:
    """Run a command and leave with its exit code; an error is one sentence on stderr."""
    if words is None and TRAINS & set(sys.argv[1:]):
        begin_again()
    words = list(sys.argv[1:] if words is None else words)
    debug = "--debug" in words
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    log = logging.getLogger("tunesmith")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    before = signal.signal(signal.SIGINT, interrupted)  # Typer would turn Ctrl-C into exit code 1
    try:
        app([word for word in words if word != "--debug"])
    except Exception as error:
        if debug:
            sys.excepthook = trace
            raise
        sentence, code = explain(error)
        with suppress(OSError):  # where nothing can be written, the exit code is left
            sys.stderr.write(f"tunesmith: {sentence}\n" if sentence else "")
        sys.exit(code)
    finally:
        signal.signal(signal.SIGINT, before)
        log.removeHandler(handler)


def interrupted(*_: object) -> None:
    raise Interrupted("interrupted; nothing was left half-written")


def explain(error: Exception) -> tuple[str, int]:
    """An error as a sentence and an exit code."""
    if isinstance(error, Refusal):
        return str(error), error.code
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains once more at its end
        return "", 0
    if full(error):
        return f"the disk is full ({error}); make room and try again", BadEnvironment.code
    return masked(f"{type(error).__name__}: {error}; `--debug` shows where it happened"), Refusal.code


def trace(*error: Any) -> None:
    """A traceback, as --debug shows it."""
    sys.stderr.write(masked("".join(format_exception(*error))))
