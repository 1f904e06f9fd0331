"""Everything that stops a command on purpose, and the exit code it stops with.

Refusal                 1    failed while running
  x RecipeError         2    the command line or the recipe cannot be used
  x DataError           3    the data cannot be used, or `data lint` found errors in it
  x OutOfMemory         4    the model, or a batch, does not fit
  x Diverged            5    the loss is no longer a number
  x BadEnvironment      6    something is missing on this machine: a package, disk, network
  x CheckpointError     7    a checkpoint or a run folder cannot be used
  x Stopped            75    stopped by a signal, and saved: `--resume` goes on
  x Interrupted       130    stopped by a signal, with nothing to save
"""

from typing import ClassVar

from .secret import masked


class Refusal(Exception):
    """One sentence: which file, line or key; what was expected; what to do. Secrets in it are masked."""

    code: ClassVar[int] = 1

    def __init__(self, sentence: str) -> None:
        super().__init__(masked(sentence))


class RecipeError(Refusal):
    """The command line or the recipe cannot be used; one line for each mistake."""

    code = 2


class DataError(Refusal):
    """The data cannot be used; names the file and the line."""

    code = 3


class OutOfMemory(Refusal):
    """The model, or a batch, does not fit."""

    code = 4


class Diverged(Refusal):
    """The loss is no longer a number."""

    code = 5


class BadEnvironment(Refusal):
    """Something is missing on this machine: a package, disk space, a network."""

    code = 6


class CheckpointError(Refusal):
    """A checkpoint or a run folder cannot be used."""

    code = 7


class Stopped(Refusal):
    """Stopped by a signal and saved; the message says how to go on."""

    code = 75


class Interrupted(Refusal):
    """Stopped by a signal before there was anything to save."""

    code = 130
