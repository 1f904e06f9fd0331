"""Lark, in China Feishu."""

import time

from ._signed import Signed, sign
from .base import Ended, notice


@notice("lark")
class Lark(Signed):
    """A custom bot of Lark, in China Feishu."""

    def message(self, ended: Ended):
        made = {"msg_type": "text", "content": {"text": ended.text}}
        if not self.secret:
            return made
        now = str(int(time.time()))
        return made | {"timestamp": now, "sign": sign(f"{now}\n{self.secret}")}

    def refused(self, answer):
        code = answer.get("code", answer.get("StatusCode", 0))
        return f"{answer.get('msg', '')} (code {code})".strip() if code else ""
