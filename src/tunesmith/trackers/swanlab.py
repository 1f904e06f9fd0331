"""SwanLab."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from .base import About, Told, Tracker, tracker

QUIET: dict[str, Any] = {
    "interactive": False,
    "probe": {name: False for name in ("hardware", "runtime", "requirements", "conda", "git", "swanlab", "monitor")},
    "terminal": {"proxy_type": "none"},
}
"""SwanLab keeps the command line, folder, host, user, packages and all that is printed, unless it is told not to."""


@tracker("swanlab")
class SwanLab(Tracker):
    """Online where a key is known, else offline under swanlog in the run's folder, for `swanlab sync`; SWANLAB_MODE
    (online, offline, local) and the other variables of SwanLab are followed."""

    project: str = "tunesmith"
    """The project that the run stands in."""

    def open(self, about: About) -> Logged:
        import swanlab  # pyright: ignore[reportMissingImports] - an extra

        mode = os.environ.get("SWANLAB_MODE") or ("online" if known() else "offline")
        run = swanlab.init(
            settings=swanlab.Settings(**QUIET),
            project=self.project,
            name=about.name,
            id=about.id[:21],
            resume="allow",
            mode=mode,  # pyright: ignore[reportArgumentType]: SwanLab checks it
            log_dir=os.environ.get("SWANLAB_LOG_DIR") or str(about.folder / "swanlog"),
            config=about.settings,
        )
        return Logged(run)


class Logged(Told):
    def close(self, ending: str) -> None:
        self.run.finish() if ending == "finished" else self.run.finish(state="aborted")


def known() -> bool:
    """Whether a key is known, in the environment or where `swanlab login` keeps it."""
    home = Path(os.environ.get("SWANLAB_SAVE_DIR", Path.home() / ".swanlab"))
    return bool(os.environ.get("SWANLAB_API_KEY")) or (home / ".netrc").is_file()
