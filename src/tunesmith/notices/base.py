"""What a notice is: a message to an address that only the environment knows, when a run has ended."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

from ..config.record import record
from ..config.registry import Registry
from ..errors import BadEnvironment, RecipeError
from ..secret import hide

VARIABLE = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True)
class Ended:
    """A run that has ended."""

    run: str
    """Its name."""
    ending: str
    """finished, stopped, failed or died."""
    said: str
    """What it came to, or why not, in a sentence."""
    figures: Mapping[str, Any]

    @property
    def title(self) -> str:
        return f"Tunesmith: {self.run} {self.ending}"

    @property
    def text(self) -> str:
        return f"{self.title}. {self.said}".strip()


@record
class Notice:
    """A message by webhook when a run has ended. The address is a secret: it stands in the environment alone."""

    url_env: str
    """The environment variable that holds the webhook's address."""
    when: tuple[Literal["finished", "stopped", "failed"], ...] = ("finished", "failed")
    """Which ends are told; a run that was killed has failed."""

    name: ClassVar[str]

    def refuse(self, key: str) -> None:
        """Refuse a variable that is not set or holds no address, without showing what it holds; and hide it from now
        on wherever something is written."""
        named(self.url_env, f"{key}.url_env")
        url = os.environ[self.url_env]
        parts = urlsplit(url)
        hide(url, f"{parts.path}?{parts.query}" if parts.query else parts.path, parts.query)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BadEnvironment(f"{key}.url_env: {self.url_env} holds no address that begins with https://")

    def address(self, url: str) -> str:
        """Where the message goes; signed, where that is done in the address."""
        return url

    def message(self, ended: Ended) -> dict[str, Any]:
        """What is sent, as JSON."""
        raise NotImplementedError

    def refused(self, answer: Mapping[str, Any]) -> str:
        """Why a service that answered with 200 did not take the message after all."""
        return ""


notice: Registry[Notice] = Registry("notice", "tunesmith.notices")


def named(variable: str, key: str) -> None:
    """Refuse what is no name of a variable that is set; what stands there may be the secret itself."""
    if not VARIABLE.fullmatch(variable):
        hide(variable)
        raise RecipeError(
            f"{key}: must be the name of an environment variable, such as TEAM_WEBHOOK; what is secret belongs into"
            " that variable, for every file of the run would show it"
        )
    if not os.environ.get(variable):
        raise BadEnvironment(f"{key}: the environment has no {variable}; export {variable}=... first")
