"""Plain JSON, for a program of one's own."""

from .base import Ended, Notice, notice


@notice("webhook")
class Webhook(Notice):
    """JSON with run, ending, said and figures, for a program of one's own."""

    def message(self, ended: Ended):
        return {"run": ended.run, "ending": ended.ending, "said": ended.said, "figures": dict(ended.figures)}
