"""Whether the answer is the right one, to the letter."""

from .base import Reward, reward, truth_of


@reward("exact_match")
class ExactMatch(Reward):
    """1 if the answer is what the row says is right, else 0; spaces count as one."""

    ignore_case: bool = True
    """Whether capital letters and a full stop at the end do not matter."""
    last_line: bool = False
    """Compare the last line of the answer alone."""

    def one(self, said):
        lines = said.completion.strip().splitlines()
        answer = lines[-1] if self.last_line and lines else said.completion
        return float(self.plain(answer) == self.plain(truth_of(said)))

    def plain(self, text: str) -> str:
        text = " ".join(text.split())
        return text.rstrip(".。").casefold() if self.ignore_case else text
