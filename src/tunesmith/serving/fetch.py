"""Fetching what a client names by an address: from hosts that are allowed, outside this machine and its network.

A name is looked up once, and the connection goes to the very address that was looked at: a name that leads elsewhere
the second time leads nowhere. Nothing else on the way (a proxy, a redirect, a name and password) is followed.
"""

from __future__ import annotations

import socket
import ssl
import time
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from threading import Timer
from typing import Any, Protocol
from urllib.parse import SplitResult, urlsplit

from .fault import Fault, bad

PORTS = {"http": 80, "https": 443}
TRANSLATED = IPv6Network("64:ff9b::/96")
"""In which an address of the old kind is written as one of the new."""
PIECE = 1 << 16


class Limits(Protocol):
    """Documented in settings.py."""

    @property
    def image_hosts(self) -> tuple[str, ...]: ...
    @property
    def max_image(self) -> int: ...
    @property
    def image_timeout(self) -> float: ...


def fetched(address: str, limits: Limits) -> bytes:
    """What lies at an address. Raises Fault."""
    parts, port = allowed(address, limits.image_hosts)
    host = str(parts.hostname)
    ends = time.monotonic() + limits.image_timeout
    try:
        return got(parts, port, resolved(host, port), limits, ends)
    except (OSError, HTTPException, ValueError) as error:
        if time.monotonic() >= ends:
            raise refused(f"{host} took longer than {limits.image_timeout:g} s") from None
        raise refused(f"{host} gave nothing ({type(error).__name__})") from None


def allowed(address: str, hosts: tuple[str, ...]) -> tuple[SplitResult, int]:
    """The parts of an address that may be asked. Raises Fault."""
    if not hosts:
        raise refused("addresses are not followed here; send the image itself, as data:image/png;base64,...")
    try:
        parts = urlsplit(address)
        port = parts.port or PORTS.get(parts.scheme, 0)
    except ValueError:
        raise refused("is no address") from None
    if parts.scheme not in PORTS or not parts.hostname or not address.isascii() or not address.isprintable():
        raise refused("must be a data URL, or an address that begins with http:// or https://")
    if parts.username is not None or parts.password is not None:
        raise refused("must hold no name and password")
    usual = port == PORTS[parts.scheme]
    if f"{parts.hostname}:{port}" not in hosts and not (usual and parts.hostname in hosts):
        raise refused(f"images of {parts.hostname[:80]} are not fetched here; image_hosts does not name it")
    return parts, port


def resolved(host: str, port: int) -> str:
    """The network address of a host, if all that it has are public. Raises Fault."""
    found = [str(one[4][0]) for one in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    for one in found:
        if not public(one):
            raise refused(f"{host} is an address of this machine or its network, which is not asked")
    return found[0]


def public(address: str) -> bool:
    """Whether a network address is one of the world's, whatever it is written as."""
    try:
        found: Any = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    within = inner(found)
    return all(one.is_global and not one.is_multicast and not one.is_reserved for one in (within or (found,)))


def inner(address: IPv4Address | IPv6Address) -> list[IPv4Address]:
    """The old addresses that are written in a new one, all of which would be asked."""
    if isinstance(address, IPv4Address):
        return []
    found = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in TRANSLATED:
        found.append(IPv4Address(int(address) & 0xFFFFFFFF))
    return [one for one in found if one is not None]


def got(parts: SplitResult, port: int, place: str, limits: Limits, ends: float) -> bytes:
    """What is given at one network address, within its bounds; whoever gives it slowly is cut off at the end."""
    host = str(parts.hostname)
    held = [socket.create_connection((place, port), timeout=max(0.01, ends - time.monotonic()))]
    cut = Timer(max(0.01, ends - time.monotonic()), lambda: shut(held[0]))
    cut.daemon = True
    cut.start()
    link = HTTPConnection(host, port)
    try:
        if parts.scheme == "https":
            secure = ssl.create_default_context()
            held[0] = secure.wrap_socket(held[0], server_hostname=host, do_handshake_on_connect=False)
            held[0].do_handshake()
        link.sock = held[0]
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        link.request("GET", target, headers={"Accept": "image/*", "Connection": "close"})
        answer = link.getresponse()
        if answer.status != 200:
            more = "; redirects are not followed" if 300 <= answer.status < 400 else ""
            raise refused(f"{host} answered {answer.status}{more}")
        data = b""
        while piece := answer.read1(PIECE):
            data += piece
            if len(data) > limits.max_image:
                raise refused(f"more than {limits.max_image} bytes; send a smaller image")
        if answer.length or time.monotonic() >= ends:
            raise OSError("cut off before its end")
        return data
    finally:
        cut.cancel()
        link.close()
        held[0].close()


def shut(connection: socket.socket) -> None:
    """End a connection, whoever waits for it."""
    with suppress(OSError):  # it may have ended
        connection.shutdown(socket.SHUT_RDWR)


def refused(why: str) -> Fault:
    return bad(f"'image_url': {why}", "messages")
