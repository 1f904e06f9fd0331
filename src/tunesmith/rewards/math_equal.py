"""Whether the answer comes to the right number."""

from __future__ import annotations

import re
from fractions import Fraction

from ..config.record import NonNegative
from .base import Reward, Unscored, reward, truth_of

DIGITS = 60
"""Longer numbers are no answer, and take long to compute with."""
NUMBER = r"[-+]?(?:\d{1,3}(?:,\d{3})+(?![\d,])|\d+)?(?:\.\d+)?(?:[eE][-+]?\d{1,3})?"
FRACTION = re.compile(r"([-+]?)\s*\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
# a part of NUMBER may be missing, though not every one
DIGIT = r"(?=[-+]?\.?\d)"
SPOKEN = re.compile(rf"(?<![\w.]){DIGIT}({NUMBER})(?:\s*/\s*{DIGIT}({NUMBER}))?(\s*\\?%)?")
DRESS = re.compile(r"\\(?:left|right|,|;|!|\$)|\\text\{[^{}]*\}|[$€£¥]")
MINUS = str.maketrans("−–－", "---")


@reward("math_equal")
class MathEqual(Reward):
    """1 if the answer's last number, or that in its last \\boxed{}, is the right one, else 0.

    Reads decimals, thousands, powers of ten, percent, fractions such as 3/4 and \\frac{3}{4}, exactly. Where the right
    answer is no number, what is boxed is compared as text.
    """

    tolerance: NonNegative = 0.0
    """How far off it may be, as a share of the right number."""
    boxed_only: bool = False
    """Whether only what is in \\boxed{} counts."""

    def one(self, said):
        right, box = truth_of(said), boxed(said.completion)
        right = (boxed(right) or right.rpartition("####")[2]).strip()
        if not right:
            raise Unscored("the row's right answer is empty")
        if not SPOKEN.fullmatch(undressed(right).strip(" .")):
            return float(squeezed(box or said.completion) == squeezed(right))
        wanted = number(right)
        if wanted is None:
            raise Unscored("the row's right answer is divided by zero, or a number too long")
        if box is None and self.boxed_only:
            return 0.0
        found = number(said.completion if box is None else box)
        return float(found is not None and abs(found - wanted) <= Fraction(self.tolerance) * abs(wanted))


def boxed(text: str) -> str | None:
    """What stands in the last \\boxed{}, which may hold braces; None if there is none, or it never ends."""
    start = max(text.rfind("\\boxed{"), text.rfind("\\fbox{"))
    if start < 0:
        return None
    depth, begin = 0, text.index("{", start) + 1
    for at in range(begin - 1, len(text)):
        depth += (text[at] == "{") - (text[at] == "}")
        if depth == 0:
            return text[begin:at]
    return None


def number(text: str) -> Fraction | None:
    """The last number of a text, exactly."""
    found = [match for match in SPOKEN.finditer(undressed(text)) if len(match[0]) <= DIGITS]
    if not found:
        return None
    above, below, percent = found[-1].groups()
    try:
        value = exact(above) / (exact(below) if below else 1)
    except ZeroDivisionError:
        return None
    return value / 100 if percent else value


def undressed(text: str) -> str:
    """A text without what only adorns numbers, and fractions on one line."""
    text = DRESS.sub("", text.translate(MINUS))
    return FRACTION.sub(lambda found: f"{found[1]}{found[2].strip()}/{found[3].strip()}", text)


def exact(text: str) -> Fraction:
    return Fraction(text.replace(",", ""))


def squeezed(text: str) -> str:
    return "".join(DRESS.sub("", text).split()).rstrip(".")
