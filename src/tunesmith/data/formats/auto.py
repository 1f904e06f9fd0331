"""Rows whose format is told from their columns."""

from typing import ClassVar

from .base import Format, format_


@format_("auto")
class Auto(Format):
    """Looks at the columns, and says which format it took them for."""

    detected: ClassVar[bool] = False
