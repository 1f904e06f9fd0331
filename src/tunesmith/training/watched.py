"""Who is told of a run beside its own folder: trackers of how it goes, people of how it ended."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import uuid4

from ..config.layers import values
from ..config.load import dump, setting
from ..errors import Interrupted, RecipeError, Stopped
from ..evaluate.metrics import Scores
from ..evaluate.report import headline
from ..follower import PATIENCE, Follower
from ..run import Run
from ..runs import RunFolder
from ..secret import masked

log = logging.getLogger("tunesmith")

SCORES = ("accuracy", "macro_f1", "error", "correlation", "loss", "perplexity")
HUB = re.compile(r"((modelscope|hf):)?[\w.-]+/[\w.-]+|https?://.*", re.ASCII)
"""What looks like a path and is a name elsewhere."""
PATH = re.compile(r"(?<![\w.:/])~?/(?:[^\s/:'\"]+/)*([^\s/:'\"]+)")


@dataclass
class Watched:
    """The processes that follow a run."""

    run: Run
    folder: RunFolder
    say: Callable[[str], None]
    trackers: dict[str, Follower] = field(default_factory=dict)
    notices: Follower | None = None

    def begin(self) -> None:
        """Open the trackers. A run that goes on is the same run in each."""
        chosen = self.run.train.report_to
        if not chosen or self.trackers:
            return
        known = self.folder.facts.get("tracked") or uuid4().hex[:24]
        self.folder.note(tracked=known)
        for one in chosen:
            options = dump(one)
            place = self.folder.path.resolve()
            begin: dict[str, Any] = {"id": known, "run": place.name, "folder": str(place)}
            begin |= {"settings": settings(self.run), "name": options.pop("name"), "options": options}
            self.trackers[one.name] = Follower("tunesmith.trackers", partial(lost, one.name))
            self.trackers[one.name].tell(begin)

    def log(self, line: Mapping[str, float]) -> None:
        """Pass on a line of metrics."""
        for follower in self.trackers.values():
            follower.tell(dict(line))

    def measured(self, step: int, sides: Mapping[str, Mapping[str, Any] | None]) -> None:
        """Pass on what was measured before and after."""
        found = {f"{side}/{name}": (known or {}).get(name) for side, known in sides.items() for name in SCORES}
        if there := {name: value for name, value in found.items() if value is not None}:
            self.log({"step": step, **there})

    def end(self, ending: str, said: str, figures: Mapping[str, Any]) -> None:
        """Tell all how it ended, and wait for them, but not for ever."""
        message = {"ending": ending, "said": without_paths(masked(said)), "figures": figures}
        if self.notices:
            self.notices.close(message)
        for follower in self.trackers.values():
            follower.close({"ending": ending})
        began = monotonic()
        if self.notices:
            self.notices.wait(PATIENCE / 2)
        late = [name for name, one in self.trackers.items() if not one.wait(began + PATIENCE - monotonic())]
        if late:
            self.say(f"train.report_to: {', '.join(late)} has not taken in all yet; it goes on for two minutes at most")


@contextmanager
def watching(run: Run, folder: RunFolder, say: Callable[[str], None]) -> Iterator[Watched]:
    """Within it a run is watched; its end is told however it ends, and where its process is killed too."""
    refuse_watchers(run)  # on going on too: it hides the addresses
    watched = Watched(run, folder, say)
    if run.notify:
        watched.notices = Follower("tunesmith.notices", lambda why: log.warning("notify: not sent: %s", why))
        watched.notices.tell({"run": folder.path.resolve().name, "notices": [dump(one) for one in run.notify]})
    try:
        yield watched
    except Exception as error:
        ending = "stopped" if isinstance(error, Stopped | Interrupted) else "failed"
        watched.end(ending, str(error) or type(error).__name__, {})
        raise
    result = folder.facts.get("result") or {}
    before, after = (Scores.from_json(result.get(side)) for side in ("before", "after"))
    watched.end("finished", headline(before, after), result | {"run": folder.path.name})


def refuse_watchers(run: Run) -> None:
    """Whom there is not, or who cannot be told."""
    names = [one.name for one in run.train.report_to]
    if len(set(names)) < len(names):
        raise RecipeError(f"train.report_to: names one twice ({', '.join(names)}); leave one out")
    for one in run.train.report_to:
        one.refuse()
    for number, one in enumerate(run.notify):
        one.refuse(f"notify.{number}")


def lost(name: str, why: str) -> None:
    log.warning("train.report_to: %s failed (%s); training goes on without it", name, why)


def settings(run: Run) -> dict[str, Any]:
    """A recipe as trackers may know it: by dotted keys, without paths and what is secret."""
    found = {setting(key): value for key, value in values(dump(run)) if key[0] not in ("output", "notify")}
    return {name: plain(value) for name, value in found.items() if value is not None}


def plain(value: Any) -> Any:
    """A value with the names of files in place of their paths."""
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if not isinstance(value, str):
        return value
    there = len(value) < 1000 and "/" in value and "\n" not in value and Path(value).exists()
    if there or ("/" in value and " " not in value and not HUB.fullmatch(value)):
        return Path(value).name
    return masked(without_paths(value))


def without_paths(text: str) -> str:
    """A text in which files are named without the folders that they are in."""
    return PATH.sub(r"\1", text)
