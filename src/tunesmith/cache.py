"""What is made once and kept: a folder that is there whole, with a mark of what it was made of."""

import errno
import json
import logging
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from uuid import uuid4

from .errors import BadEnvironment
from .files import private, remove, sync

log = logging.getLogger("tunesmith")

MARK = ".whole.json"
FORGOTTEN = 30 * 86_400
"""Seconds after which what nobody asked for any more is removed."""


def cache() -> Path:
    """Where models and data are kept: TUNESMITH_HOME, or `tunesmith` in the user's cache folder."""
    if home := os.environ.get("TUNESMITH_HOME"):
        return Path(home).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "tunesmith"


def keep(target: Path, made_of: str, make: Callable[[Path], None], disk: int) -> Path:
    """The folder `target`, whole; if it is not there, or not as it was made, `make` fills a new one.

    It is made beside, synced and renamed: a kill at any moment leaves no half folder under this name, and of two
    processes that make it at once, the one that comes later throws its copy away.
    """
    if is_whole(target, made_of):
        return target
    scratch = target.with_name(f".{target.name}.{uuid4().hex[:8]}.tmp")
    folder = scratch / target.name
    try:
        private(cache())
        folder.mkdir(parents=True)
        sweep(target.parent)
        if shutil.disk_usage(scratch).free < disk * 1_000_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        make(folder)
        seal(folder, made_of)
        put(folder, target, made_of)
    except OSError as error:
        if error.errno not in CANNOT_WRITE:
            raise
        raise BadEnvironment(
            f"{target} cannot be written ({error.strerror}); about {disk} MB are needed: "
            "free some room, or set TUNESMITH_HOME to a folder that has it"
        ) from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


CANNOT_WRITE = (
    errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST,
)  # fmt: skip


def is_whole(folder: Path, made_of: str) -> bool:
    """Whether every file is there at the length it was written with."""
    try:
        mark = json.loads((folder / MARK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if mark["made_of"] != made_of:
        return False
    return all(
        (folder / name).is_file() and (folder / name).stat().st_size == size for name, size in mark["files"].items()
    )


def seal(folder: Path, made_of: str) -> None:
    """Put all files on the disk, then the mark that tells their lengths."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    sizes = {file.relative_to(folder).as_posix(): file.stat().st_size for file in files}
    (folder / MARK).write_text(json.dumps({"made_of": made_of, "files": sizes}, indent=1), encoding="utf-8")
    for path in [*files, folder / MARK]:
        path.chmod(folder.stat().st_mode & 0o666)  # safetensors lets none but the owner read
        sync(path)
    sync(folder)


def put(folder: Path, target: Path, made_of: str) -> None:
    """Rename a folder to its place, unless a whole one got there first."""
    if is_whole(target, made_of):
        return
    if target.exists():  # a folder cannot be renamed over one that holds something
        log.info("%s: is damaged or outdated, and made anew", target)
        target.replace(folder.with_name("old"))  # thrown away with the scratch folder
    try:
        folder.replace(target)
    except OSError:
        if not is_whole(target, made_of):
            raise
    sync(target.parent)


def used(folder: Path) -> None:
    """Note that a folder is used, and remove those beside it that nobody asked for any more."""
    os.utime(folder)
    forget(folder.parent)


@lru_cache  # once in a process is enough
def forget(room: Path) -> None:
    for old in room.iterdir():
        with suppress(FileNotFoundError):  # what another process makes, or has removed
            if old.stat().st_mtime < time.time() - FORGOTTEN:
                remove(old)


def sweep(folder: Path) -> None:
    """Remove what killed processes left half made, once it is a day old."""
    for path in folder.glob(".*.tmp"):
        with suppress(FileNotFoundError):  # of another process, which has put it in its place
            if path.stat().st_mtime < time.time() - 86_400:
                remove(path)
