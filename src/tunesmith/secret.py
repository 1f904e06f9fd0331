"""What must stand in no file, log or message: tokens, passwords in addresses, the environment's secrets."""

import os
import re

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


def holds_secret(text: str) -> bool:
    return masked(text) != text
