"""DingTalk."""

import time
from urllib.parse import urlencode

from ._signed import Signed, sign
from .base import Ended, notice


@notice("dingtalk")
class DingTalk(Signed):
    """A custom robot of DingTalk; where it wants a keyword, that is Tunesmith."""

    def address(self, url: str) -> str:
        if not self.secret:
            return url
        now = str(int(time.time() * 1000))
        told = urlencode({"timestamp": now, "sign": sign(self.secret, f"{now}\n{self.secret}")})
        return f"{url}{'&' if '?' in url else '?'}{told}"

    def message(self, ended: Ended):
        return {"msgtype": "text", "text": {"content": ended.text}}

    def refused(self, answer):
        code = answer.get("errcode", 0)
        return f"{answer.get('errmsg', '')} (errcode {code})".strip() if code else ""
