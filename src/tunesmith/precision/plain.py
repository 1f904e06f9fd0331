"""Number formats in which nothing is quantised."""

from typing import ClassVar

from .base import Format, Precision, number_format, precision


class Plain(Precision):
    name: ClassVar[Format]  # pyright: ignore[reportIncompatibleVariableOverride]

    def dtype(self):
        return number_format(self.name, "model.precision")


@precision("auto")
class Auto(Plain):
    """bf16 on a GPU that has it, else fp32; a model that is quantised already stays as it is."""


@precision("fp32")
class FP32(Plain):
    """32 bits a number."""


@precision("bf16")
class BF16(Plain):
    """16 bits a number, with the range of 32 and less detail."""


@precision("fp16")
class FP16(Plain):
    """16 bits a number, with more detail and less range; needs a GPU."""
