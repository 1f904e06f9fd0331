"""Weights & Biases."""

from __future__ import annotations

import netrc
import os
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from .base import About, Told, Tracker, tracker

QUIET: dict[str, Any] = {
    "console": "off",
    "save_code": False,
    "disable_code": True,
    "disable_git": True,
    "disable_job_creation": True,
    "silent": True,
    "host": "",
    "x_disable_meta": True,
    "x_disable_machine_info": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
}
"""W&B keeps the command line, folder, host, user, packages and all that is printed, unless it is told not to."""


@tracker("wandb")
class WandB(Tracker):
    """Online where a key is known, else offline under wandb in the run's folder, for `wandb sync`; WANDB_MODE and the
    other variables of W&B are followed."""

    project: str = "tunesmith"
    """The project that the run stands in."""

    def open(self, about: About) -> Logged:
        import wandb  # pyright: ignore[reportMissingImports] - an extra

        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        return Logged(
            wandb.init(
                id=about.id,
                name=about.name,
                project=self.project,
                dir=os.environ.get("WANDB_DIR", about.folder),
                resume="allow",
                config=about.settings,
                mode=os.environ.get("WANDB_MODE") or ("online" if known() else "offline"),
                settings=wandb.Settings(**QUIET),
            )
        )


class Logged(Told):
    def close(self, ending: str) -> None:
        self.run.finish(exit_code=0 if ending == "finished" else 1)


def known() -> bool:
    """Whether a key is known, in the environment or where `wandb login` keeps it."""
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    with suppress(OSError, netrc.NetrcParseError):
        if netrc.netrc().authenticators(host):
            return True
    return bool(os.environ.get("WANDB_API_KEY"))
