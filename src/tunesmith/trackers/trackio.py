"""Trackio."""

from __future__ import annotations

import os
from typing import Any

from .base import About, Told, Tracker, tracker


@tracker("trackio")
class Trackio(Tracker):
    """To a database where TRACKIO_DIR says, else in the Hugging Face cache; look at it with `trackio show`."""

    project: str = "tunesmith"
    """The project that the run stands in."""

    def open(self, about: About) -> Logged:
        os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
        import trackio  # pyright: ignore[reportMissingImports] - an extra

        name = f"{about.name}-{about.id[:6]}"  # runs are told apart by their names
        known: dict[str, Any] = {"project": self.project, "name": name, "config": about.settings, "resume": "allow"}
        run = trackio.init(**known, embed=False, auto_log_gpu=False, auto_log_cpu=False)
        run.config.pop("_Username", None)  # of whoever is logged in to the Hub
        return Logged(run)


class Logged(Told):
    def close(self, ending: str) -> None:
        import trackio  # pyright: ignore[reportMissingImports] - an extra

        trackio.finish()
