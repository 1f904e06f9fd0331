"""Slack, and what takes Slack's messages, such as Mattermost."""

from .base import Ended, Notice, notice


@notice("slack")
class Slack(Notice):
    """An incoming webhook of Slack, or of what takes the same messages, such as Mattermost."""

    def message(self, ended: Ended):
        # in Slack these three begin links and mentions, such as <!channel>
        text = ended.text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        return {"text": text}
