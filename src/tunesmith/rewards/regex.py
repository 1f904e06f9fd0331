"""Whether the answer looks as it should."""

from ..config.record import Positive
from ..errors import RecipeError
from .base import Reward, Unscored, reward


@reward("regex")
class Regex(Reward):
    """1 if a regular expression is found in the answer, else 0."""

    pattern: str
    """The expression, as the package `regex` reads it."""
    whole: bool = False
    """Whether it must fit all of the answer, spaces around it aside, rather than a part."""
    ignore_case: bool = False
    """Whether capital letters do not matter."""
    timeout: Positive = 1.0
    """Seconds for an answer, after which it is not scored: some expressions take for ever on some texts."""

    def refuse(self, key):
        import regex

        try:
            regex.compile(self.pattern)
        except regex.error as error:
            raise RecipeError(f"{key}.pattern: is no regular expression: {error}; mend it") from None

    def one(self, said):
        import regex

        flags = regex.DOTALL | (regex.IGNORECASE if self.ignore_case else 0)
        look, text = (regex.fullmatch, said.completion.strip()) if self.whole else (regex.search, said.completion)
        try:
            return float(look(self.pattern, text, flags=flags, timeout=self.timeout) is not None)
        except TimeoutError:
            raise Unscored(f"the pattern took longer than {self.timeout:g} s on an answer") from None
