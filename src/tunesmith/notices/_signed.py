"""What services that are told by a signature who sends have in common."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os

from ..config.record import record
from ..secret import hide
from .base import Notice, named


@record
class Signed(Notice):
    """A message that may be signed."""

    secret_env: str | None = None
    """The environment variable that holds the secret to sign with, where the robot wants that."""

    def refuse(self, key: str) -> None:
        super().refuse(key)
        if self.secret_env:
            named(self.secret_env, f"{key}.secret_env")
            hide(os.environ[self.secret_env])

    @property
    def secret(self) -> str | None:
        return os.environ[self.secret_env] if self.secret_env else None


def sign(key: str, text: str = "") -> str:
    return base64.b64encode(hmac.new(key.encode(), text.encode(), hashlib.sha256).digest()).decode()
