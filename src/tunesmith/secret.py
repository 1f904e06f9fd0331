"""What must stand in no file, log or message: tokens, passwords in addresses, the environment's secrets."""

import os
import re
from functools import lru_cache

TOKEN = re.compile(
    r"\bhf_[A-Za-z0-9]{20,}"  # Hugging Face
    r"|\bsk-(?=[\w-]*\d)[\w-]{20,}"  # OpenAI, Anthropic and those who do as they do
    r"|\b(gh[opsru]_|github_pat_|glpat-|xox[abeprs]-)[\w-]{16,}"
    r"|\bAKIA[0-9A-Z]{16}\b"
)
ADDRESS = re.compile(r"""(?<=://)[^\s/"'<>\\]*@""")  # user:password@
QUERY = re.compile(r"""([?&][\w-]*(?:token|key|secret|password|signature)=)[^\s&"'<>]{8,}""", re.IGNORECASE)
VARIABLE = re.compile(r"(TOKEN|KEY|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$", re.IGNORECASE)
SHORTEST = 12
"""A shorter value of a variable is as likely a word that stands in the text for reasons of its own."""


HIDDEN: set[str] = set()
"""Further values that were read out of the environment."""


def hide(*values: str) -> None:
    """Have `masked` hide these from now on."""
    HIDDEN.update(value for value in values if len(value) >= SHORTEST)


def masked(text: str) -> str:
    """The text with *** where a secret stood."""
    values = {value for name, value in os.environ.items() if VARIABLE.search(name) and len(value) >= SHORTEST}
    for value in sorted(values | HIDDEN, key=len, reverse=True):
        text = text.replace(value, "***")
    text = QUERY.sub(r"\1***", ADDRESS.sub("***@", text))
    return TOKEN.sub("***", text)


def without(text: str, key: str) -> str:
    """The text with *** where a key stood, also as JSON, and JSON in JSON, may write it: k as \\u006b, / as \\/."""
    if not key:
        return text
    text = text.replace(key, "***")
    return spelt(key).sub("***", text) if "\\" in text else text


@lru_cache
def spelt(key: str) -> re.Pattern[str]:
    """A key, each letter as it is or as an escape of JSON."""
    usual = [rf"\\{{0,8}}{re.escape(one)}" if one in '"/\\' else re.escape(one) for one in key]
    return re.compile(
        "".join(rf"(?:{one}|\\{{1,8}}(?i:u{ord(letter):04x}))" for one, letter in zip(usual, key, strict=True))
    )


def holds_secret(text: str) -> bool:
    return masked(text) != text
