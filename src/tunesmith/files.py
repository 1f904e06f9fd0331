"""Files and folders that are there whole, or not at all."""

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from uuid import uuid4

from .secret import masked


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Write a file or a folder under the path given; it then stands at `path`, synced, or nothing has changed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{uuid4().hex[:8]}.tmp")
    try:
        yield beside
        for file in [beside] if beside.is_file() else [file for file in beside.rglob("*") if file.is_file()]:
            sync(file)
        if path.is_dir():  # a folder cannot be renamed over one that holds something
            old = path.with_name(f".{path.name}.{uuid4().hex[:8]}.old")
            path.replace(old)
            beside.replace(path)
            rmtree(old)
        else:
            beside.replace(path)
        sync(path.parent)
    finally:
        remove(beside)


def write(path: Path, text: str) -> None:
    """Replace a file's text as a whole; secrets in it are masked."""
    with whole(path) as beside:
        beside.write_text(masked(text), encoding="utf-8")


def private(folder: Path) -> None:
    """Make a folder that its owner alone can look into; one that is there already stays as it is."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)


def full(error: Exception) -> bool:
    """Whether an error says that the disk is full; safetensors words it its own way."""
    return getattr(error, "errno", None) == errno.ENOSPC or f"os error {errno.ENOSPC}" in str(error)


def sync(path: Path) -> None:
    """Have the system put a file, or a folder's list of names, on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """Remove a file, a folder or a link, if it is there; what a link leads to stays."""
    if path.is_dir() and not path.is_symlink():
        rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sha256(file: Path) -> str:
    """The hash of a file's content, in hexadecimal digits."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
