"""Who judges, and by what."""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

from ..config.record import Count, Natural, NonNegative, Positive, record
from ..errors import RecipeError

HOME = ("localhost", "127.0.0.1", "::1")


@record
class Judge:
    """A language model that judges answers: behind an address that speaks OpenAI's language, or in memory; or a reward
    model, which compares them by their scores."""

    model: str
    """Its name at the address; without one a model's folder, a run's, org/name on Hugging Face or demo/NAME. A run of
    the objective reward, or a sequence classifier with one output, is a reward model."""
    url: str | None = None
    """The address up to /v1, such as https://api.openai.com/v1; http:// for this machine alone."""
    api_key_env: str = "OPENAI_API_KEY"
    """The variable of the environment that holds the key. The key itself stands in no file."""
    rubric: str = "A good answer helps the asker: it is right, to the point, complete and safe."
    """What makes an answer good, in words that the judge reads."""
    principles: tuple[str, ...] = ("Say what is true.", "Help with what was asked.", "Do no harm.")
    """The constitution by which answers are criticised and rewritten."""
    reason: bool = True
    """Have it write a reason before its verdict; a model in memory gives none, for its verdicts are ranked."""
    temperature: NonNegative | None = 0.0
    """0 takes the likeliest words; null says nothing of it, for servers that refuse it."""
    max_tokens: Count = 512
    """Longest answer of the judge, in tokens."""
    constrain: Literal["auto", "schema", "words"] = "auto"
    """Have the server hold answers to a JSON schema (response_format), or ask for it in words; auto does the first
    until a server refuses it. Answers are checked either way."""
    timeout: Positive = 60.0
    """Seconds that an answer may take."""
    retries: Natural = 5
    """How often a question is asked again that failed or was answered with nonsense."""
    backoff: Positive = 1.0
    """Seconds before the first time, twice that before the next and so on, by chance up to half more; a server's
    Retry-After is heeded."""
    requests_per_minute: Positive | None = None
    """The most questions a minute."""
    parallel: Count = 4
    """Questions under way at once."""
    price_in: NonNegative = 0.0
    """Price of a million tokens that it reads, for the account."""
    price_out: NonNegative = 0.0
    """Price of a million tokens that it writes."""

    def refuse(self, key: str = "judge") -> None:
        """Refuse what cannot be, before anything is asked."""
        if self.url is None:
            if self.temperature:
                raise RecipeError(f"{key}.temperature: a model in memory ranks its verdicts; leave it out")
            return
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or parts.query:
            raise RecipeError(f"{key}.url: must be an https:// address without a password or query (got '{self.url}')")
        if parts.scheme == "http" and parts.hostname not in HOME:
            raise RecipeError(f"{key}.url: would send the key in the clear; take https://, or http:// to this machine")
