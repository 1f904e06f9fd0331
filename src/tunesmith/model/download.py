"""Files at an https:// address: downloaded once, and used only if they are what they were said to be."""

from __future__ import annotations

import errno
import hashlib
import ipaddress
import logging
import re
from contextlib import suppress
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, Request, build_opener
from uuid import uuid4

from ..data.reading.source import EXPECTED, kind_of
from ..errors import BadEnvironment, DataError, RecipeError
from ..files import private, remove, sha256, sync
from ..secret import masked

log = logging.getLogger("tunesmith")

LARGEST = 100 << 30
"""Bytes that a download may have."""
PATIENCE = 60
"""Seconds without a byte."""
BLOCK = 1 << 20
CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS)


class OnlyHttps(HTTPRedirectHandler):
    """Follows a redirect only to another https address, and not into the network of this machine."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        parts = urlsplit(newurl)
        if parts.scheme != "https" or local(parts.hostname or ""):
            raise DataError(f"{req.full_url}: leads on to {newurl}; only public https:// addresses are followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def local(host: str) -> bool:
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return host == "localhost" or host.endswith((".localhost", ".local", ".internal"))


def download(url: str, expected: str | None, cache: Path, opener: OpenerDirector | None = None) -> Path:
    """The file at an address, out of the cache if it is there, with exactly this sha256.

    Without one nothing is used: the file is downloaded to tell which sha256 it has.
    """
    if "@" in urlsplit(url).netloc:
        raise RecipeError(f"{masked(url)}: holds a password; download it yourself, and name the file")
    name, expected = checked(url, expected)
    folder = cache / "downloads"
    if expected and sha256_at(folder / expected / name) == expected:
        return folder / expected / name
    target = keep(url, name, folder, opener or build_opener(OnlyHttps))
    found = target.parent.name
    if expected is None:
        raise RecipeError(
            f"{url}: needs data.sha256, so that what is trained on cannot change unseen; if {target} is as you expect,"
            f" set data.sha256={found}"
        )
    if found != expected:
        raise DataError(
            f"{url}: has the sha256 {found}, not {expected} as data.sha256 says; if {target} is what you expect, set"
            f" data.sha256={found}"
        )
    return target


def checked(url: str, expected: str | None) -> tuple[str, str | None]:
    """The name of the file at an address, and its sha256 as it is written here."""
    if not url.startswith("https://"):
        raise RecipeError(f"{url}: only https:// addresses are read; download the file and name it")
    name = re.sub(r"[^\w.-]", "_", urlsplit(url).path.rpartition("/")[2])
    if not kind_of(Path(name)):
        raise RecipeError(f"{url}: must end in the name of a file of rows; expected one of {EXPECTED}")
    if expected is not None and not re.fullmatch("[0-9a-fA-F]{64}", expected):
        raise RecipeError(f"data.sha256: must be 64 hexadecimal digits (got '{expected}')")
    return name, expected and expected.lower()


def keep(url: str, name: str, folder: Path, opener: OpenerDirector) -> Path:
    """Download a file into a folder of its sha256: it is there whole, or not at all."""
    beside = folder / f".{uuid4().hex}.tmp"
    try:
        private(folder.parent)
        folder.mkdir(exist_ok=True)
        found = fetch(url, beside, opener)
        target = folder / found / name
        target.parent.mkdir(exist_ok=True)
        sync(beside)
        beside.replace(target)
    except OSError as error:
        raise BadEnvironment(f"{folder}: cannot be written ({error.strerror}); set TUNESMITH_HOME to another") from None
    finally:
        with suppress(OSError):  # it says less than what went wrong before
            remove(beside)
    return target


def sha256_at(file: Path) -> str | None:
    return sha256(file) if file.is_file() else None


def fetch(url: str, target: Path, opener: OpenerDirector) -> str:
    """Write what is at an address into a file; its sha256."""
    log.info("%s: downloading", url)
    digest, size = hashlib.sha256(), 0
    try:
        with opener.open(url, timeout=PATIENCE) as answer, target.open("wb") as file:
            length = answer.length or 0
            while block := answer.read(BLOCK):
                size += len(block)
                if max(size, length) > LARGEST:
                    raise DataError(f"{url}: is larger than {LARGEST >> 30} GiB; download it and name it here")
                digest.update(block)
                file.write(block)
    except (OSError, HTTPException) as error:
        if getattr(error, "errno", None) in CANNOT_WRITE:
            raise
        raise unreachable(url, str(error)) from None
    if size < length:
        raise unreachable(url, f"only {size:,} of {length:,} bytes came")
    return digest.hexdigest()


def unreachable(url: str, why: str) -> BadEnvironment:
    return BadEnvironment(f"{url}: could not be downloaded ({why}); check the address and the network, and try again")
